-- needs: base, recounting, batch, slots, uniques, entries
-- Reads entries.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers { now, the fields in the order of ENTRY_FIELDS or nil, ... }, nil also for a damaged entry.

local answers = { digits(now) }
for _, id in ipairs(given) do
  local row = try('HMGET', entry_key(id), unpack(ENTRY_FIELDS))
  answers[#answers + 1] = is_whole(row) and row or false
end
return answers
