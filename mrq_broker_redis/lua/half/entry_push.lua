-- needs: base, recounting, batch, slots, uniques, entries
-- Stores entries.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { lease in ms, queues, { entry, ... } }
--   queues, entry: as in push_entry() of entries
-- Answers for each 1, or 0 where an entry of a later version or of a later claim exists.

-- Whether a later claim than that of this token holds the entry.
local function is_held_later(id, token)
  local held = call('HGET', entry_key(id), 't')
  return held and tonumber(string.match(held, '^%d+')) > tonumber(string.match(token, '^%d+'))
end

local until_ms, queues = digits(now + given[1]), given[2]
local answers = {}
for index, entry in ipairs(given[3]) do
  if entry[6] and is_held_later(entry[1], entry[6]) then
    answers[index] = 0
  else
    local before = push_entry(queues, entry, until_ms)
    answers[index] = before and before > entry[4] and 0 or 1
  end
end
flush()
return answers
