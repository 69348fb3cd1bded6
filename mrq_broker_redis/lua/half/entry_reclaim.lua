-- needs: base, recounting, batch, slots, limits, uniques, entries
-- Claims entries with expired leases.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { worker, lease in ms, limits, { entry, ... } }
--   limits: as in claiming; entry: { id, version, token as read, new token }
-- Answers for each: 1 claimed under the new token, 0 the entry has changed or its limits leave no room.

local worker, until_ms = given[1], digits(now + given[2])
rules = given[3]
local answers = {}
for index, one in ipairs(given[4]) do
  local id, key = one[1], entry_key(one[1])
  local row = try('HMGET', key, 'q', 'v', 't', 'd', 'l')
  if row[1] and row[3] == one[4] then
    answers[index] = 1 -- the call was repeated
  elseif not row[1] or tonumber(row[2] or 1) ~= one[2] or row[3] ~= one[3] or tonumber(row[4]) > now then
    answers[index] = 0
  elseif row[5] and not has_slots(id, cmsgpack.unpack(row[5])) then
    answers[index] = 0
  else
    call('HSET', key, 't', one[4], 'w', worker, 'd', until_ms)
    add_later(claimed_line(row[1]), until_ms, id)
    if row[5] then
      take_slots(id, cmsgpack.unpack(row[5]), until_ms)
      running = {} -- counted anew for the next
    end
    touch(row[1])
    answers[index] = 1
  end
end
flush()
return answers
