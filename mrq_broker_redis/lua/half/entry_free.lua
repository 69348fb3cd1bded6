-- needs: base, recounting, batch, slots, uniques, entries
-- Frees the unique keys that these jobs hold.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { key, id, time of the reservation or false for any }, ... }
-- No answer.

for _, one in ipairs(given) do
  if not one[3] or call('HGET', K .. 'u:at', one[1]) == one[3] then
    free_key(one[2], one[1])
  end
end
return false
