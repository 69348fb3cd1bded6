-- needs: base, batch, limits, uniques, entries
-- Lets unique keys go that these jobs hold. Arguments: { { key, id }, ... }.

for _, one in ipairs(given) do
  let_key_go(one[2], one[1])
end
return false
