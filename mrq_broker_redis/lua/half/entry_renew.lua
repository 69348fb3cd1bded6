-- needs: base, recounting, batch, slots, uniques, entries
-- Extends leases to now + lease.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { lease in ms, { { id, token }, ... } }
-- Answers for each: 1 renewed, 0 a later claim holds the entry or it waits, 2 it does not exist.

local until_ms = digits(now + given[1])
local answers = {}
for index, one in ipairs(given[2]) do
  local id, key = one[1], entry_key(one[1])
  local row = try('HMGET', key, 'q', 't', 'l')
  if not row[1] then
    answers[index] = 2
  elseif row[2] ~= one[2] then
    answers[index] = 0
  else
    call('HSET', key, 'd', until_ms)
    add_later(claimed_line(row[1]), until_ms, id)
    touch(row[1])
    local keys = row[3] and keys_in(row[3])
    if keys then
      take_slots(id, keys, until_ms)
    end
    answers[index] = 1
  end
end
flush()
return answers
