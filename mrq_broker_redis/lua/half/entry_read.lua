-- needs: base, batch, slots, uniques, entries
-- Reads entries.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers { now, the fields in the order of ENTRY_FIELDS or nil, ... }.

local answers = { digits(now) }
for _, id in ipairs(given) do
  local row = call('HMGET', entry_key(id), unpack(ENTRY_FIELDS))
  answers[#answers + 1] = row[1] and row
end
return answers
