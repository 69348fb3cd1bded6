-- needs: base
-- Reads the rows of jobs.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers { now, row or nil, ... }, for a damaged job an empty row; a row: seen, data, worker, claimed at, settled at, progress, state of the entry,
-- due, token.

local answers = { digits(now) }
for _, id in ipairs(given) do
  local key = K .. 'j:' .. id
  local row = try('HMGET', key, 'v', 't', 's', 'z', 'd', 'a', 'w', 'i', 'e', 'h')
  if not (row[3] and row[10]) then
    answers[#answers + 1] = call('EXISTS', key, K .. 'r:' .. id) > 0 and {}
  else
    local seen = {}
    row[4] = entry_state(row[3], row[4])
    for index = 1, 6 do
      seen[index] = row[index] or ''
    end
    local data = try('GET', K .. 'r:' .. id)
    data = type(data) == 'string' and data -- or gone, or of another type
    answers[#answers + 1] = { table.concat(seen, ' '), data, row[7], row[8], row[9], row[6],
      row[4], row[5], row[2] }
  end
end
return answers
