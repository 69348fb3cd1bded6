-- needs: base, batch, limits, uniques, entries
-- Gives jobs their places. Arguments: { lease in ms, places, { entry, ... } }, as place_entry() in entries has them.
-- Answers for each: 1 it has its place, 0 there is one of a later version.

local until_ms, places = digits(now + given[1]), given[2]
local answers = {}
for index, entry in ipairs(given[3]) do
  local before = place_entry(places, entry, until_ms)
  answers[index] = before and before > entry[4] and 0 or 1
end
flush()
return answers
