-- needs: base, positions
-- The position of a waiting entry.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id }
-- Answers nil where the entry does not exist, is claimed, or has lost its place, and otherwise as position_of() in
-- positions.

local id = given[1]
local row = call('HMGET', key_of(id), 't', 'z', 'q', 'k', 'd', 'b', 'l')
if row[1] or not row[3] or not has_place(id, row[3], row[4] or '0', row[2] == 'p') then
  return false
end
return position_of(id, { q = row[3], k = row[4], d = row[5], b = row[6], l = row[7] }, row[2] == 'p')
