-- needs: base, batch, slots, parameters, uniques, entries
-- Gives claimed parameters of a raw queue the entries of their jobs, as claimed.
-- Arguments: { queue, lease in ms, places, { { parameter, entry }, ... } }, as place_entry() in entries has them.
-- Answers for each 1, or 0 where the claim is over.

local queue, until_ms, places = given[1], digits(now + given[2]), given[3]
local answers = {}
for index, one in ipairs(given[4]) do
  local param, entry = one[1], one[2]
  local id, token = entry[1], entry[6]
  if admit(queue, param, id, token) then
    place_entry(places, entry, until_ms)
  end
  answers[index] = call('HGET', entry_key(id), 't') == token and 1 or 0
end
flush()
return answers
