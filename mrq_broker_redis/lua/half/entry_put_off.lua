-- needs: base, recounting, batch, slots, uniques, entries
-- Postpones suspects: the next claims leave them out. Leases and slots stay as they are.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { time in ms, { { id, token }, ... } }
-- No answer.

local later = digits(now + given[1])
for _, one in ipairs(given[2]) do
  local row = try('HMGET', entry_key(one[1]), 'q', 't', 'd')
  if row[1] and row[2] == one[2] and (tonumber(row[3]) or 0) <= now then
    add_later(claimed_line(row[1]), later, one[1])
    touch(row[1])
  end
end
flush()
return false
