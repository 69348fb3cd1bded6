-- needs: base, recounting, batch, slots, uniques, entries
-- Removes entries of these versions and earlier, or of these tokens.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, version or false, token or false, key to free or false }, ... }
-- Answers for each 1, or 0 where no such entry exists. The unique key of a removed entry is freed, unless it is held
-- for a period. The given key is freed too, unless an entry of the job stays.

local answers = {}
for index, one in ipairs(given) do
  local id, version, token, key = one[1], one[2], one[3], one[4]
  local row = entry_of(id)
  local is_meant = row and ((version and row.v <= version) or (token and row.t == token))
  if is_meant then
    leave(id, row)
    call('DEL', entry_key(id))
    if row.u and row.m ~= 'period' then
      free_key(id, row.u)
    end
  end
  if key and (is_meant or not row) then
    free_key(id, key)
  end
  answers[index] = is_meant and 1 or 0
end
flush()
return answers
