-- needs: base, recounting, batch, slots, uniques, entries
-- Parks claimed entries that started nothing.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, token, limit key, due time }, ... }
-- Answers for each: 1 the entry is parked, 0 a later claim holds it, or it does not exist.

local answers = {}
for index, one in ipairs(given) do
  local id, token, limit_key, due = one[1], one[2], one[3], one[4]
  local row = entry_of(id)
  if row and row.t == token then
    leave(id, row)
    flush()
    call('HDEL', entry_key(id), 't', 'w')
    call('HSET', entry_key(id), 'd', due, 'r', token, 'o', '1')
    park(id, row.q, row.k, due, limit_key)
    answers[index] = 1
  elseif row and row.z == 'p' and call('HGET', entry_key(id), 'r') == token then
    answers[index] = 1 -- the call was repeated
  else
    answers[index] = 0
  end
end
flush()
return answers
