-- needs: base, recounting, batch, slots, uniques, entries
-- Reserves free unique keys for jobs.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, key, until, period in ms or false }, ... }
-- Answers { id of the holder or nil, time of the reservation or nil, ... }. A period without a length reserves no key.

local answers, reserved_at = {}, K .. 'u:at'
for _, one in ipairs(given) do
  local id, key, lasts, period = one[1], one[2], one[3], one[4] or nil
  local holder, since = holder_of(key), false
  if not holder and (period or lasts ~= 'period') then
    reserve(id, key, period)
    holder, since = id, digits(now)
    call('HSET', reserved_at, key, since)
  elseif holder then
    since = call('HGET', reserved_at, key)
    if holder == id then -- requested again: the reservation is as new, and a period is no longer confirmed
      since = digits(now)
      call('HSET', reserved_at, key, since)
    end
  end
  answers[#answers + 1] = holder or false
  answers[#answers + 1] = since
end
return answers
