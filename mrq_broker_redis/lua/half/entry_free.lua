-- needs: base, batch, slots, uniques, entries
-- Lets unique keys go that these jobs hold. Arguments: { { key, id, when it was reserved or false for any }, ... }.

for _, one in ipairs(given) do
  if not one[3] or call('HGET', K .. 'u:at', one[1]) == one[3] then
    let_key_go(one[2], one[1])
  end
end
return false
