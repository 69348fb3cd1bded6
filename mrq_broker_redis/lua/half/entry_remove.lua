-- needs: base, batch, slots, uniques, entries
-- Removes entries. Arguments: { { id, version or false, token or false, key to let go or false }, ... }.
-- Answers for each 1, or 0 where it is not there or not the one that is meant. An entry takes its key along, but for one
-- that is held for a period; the key of a job whose entry stays, stays.

local answers = {}
for index, one in ipairs(given) do
  local id, version, token, key = one[1], one[2], one[3], one[4]
  local row = entry_of(id)
  local is_meant = row and ((version and row.v <= version) or (token and row.t == token))
  if is_meant then
    leave(id, row)
    call('DEL', entry_key(id))
    if row.u and row.m ~= 'period' then
      let_key_go(id, row.u)
    end
  end
  if key and (is_meant or not row) then
    let_key_go(id, key)
  end
  answers[index] = is_meant and 1 or 0
end
flush()
return answers
