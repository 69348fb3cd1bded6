-- needs: base, recounting, batch, slots
-- Extends leases to now + lease.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { lease in ms, { { id, token }, ... } }
-- Answers for each 1, or 0 where the claim is over.

local until_ms = digits(now + given[1])
local answers = {}
for index, one in ipairs(given[2]) do
  local id, key = one[1], K .. 'j:' .. one[1]
  local row = try('HMGET', key, 's', 't', 'q', 'l')
  if row[1] == 'started' and row[2] == one[2] and row[3] then
    call('HSET', key, 'd', until_ms)
    add_later(claimed_line(row[3]), until_ms, id)
    touch(row[3])
    local keys = row[4] and keys_in(row[4])
    if keys then
      take_slots(id, keys, until_ms)
    end
    answers[index] = 1
  else
    answers[index] = 0
  end
end
flush()
return answers
