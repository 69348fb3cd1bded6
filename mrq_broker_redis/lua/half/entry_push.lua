-- needs: base, batch, slots, uniques, entries
-- Gives jobs their places. Arguments: { lease in ms, places, { entry, ... } }, as place_entry() in entries has them.
-- Answers for each: 1 it has its place, 0 there is one of a later version, or one that a later claim holds.

-- Whether a claim holds the entry that came after the one of this token.
local function is_held_later(id, token)
  local held = call('HGET', entry_key(id), 't')
  return held and tonumber(string.match(held, '^%d+')) > tonumber(string.match(token, '^%d+'))
end

local until_ms, places = digits(now + given[1]), given[2]
local answers = {}
for index, entry in ipairs(given[3]) do
  if entry[6] and is_held_later(entry[1], entry[6]) then
    answers[index] = 0
  else
    local before = place_entry(places, entry, until_ms)
    answers[index] = before and before > entry[4] and 0 or 1
  end
end
flush()
return answers
