-- needs: base, batch, slots, uniques, entries
-- Entries as they are. Arguments: { id, ... }. Answers { now, the fields as entries lists them or nil, ... }.

local answers = { digits(now) }
for _, id in ipairs(given) do
  local row = call('HMGET', entry_key(id), unpack(ENTRY_FIELDS))
  answers[#answers + 1] = row[1] and row
end
return answers
