-- needs: base, positions
-- The position of a waiting job.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id }
-- Answers nil where the job does not exist, does not wait, or has lost its entry, and otherwise as position_of() in
-- positions.

local id = given[1]
local row = call('HMGET', key_of(id), 's', 'z', 'q', 'k', 'd', 'b', 'l')
local state = row[1] and entry_state(row[1], row[2])
if state ~= 'w' and state ~= 'p' then
  return false
end
if not has_place(id, row[3], row[4] or '0', state == 'p') then
  return false
end
return position_of(id, { q = row[3], k = row[4], d = row[5], b = row[6], l = row[7] }, state == 'p')
