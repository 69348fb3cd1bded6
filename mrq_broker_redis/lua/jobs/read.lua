-- needs: base
-- The rows of jobs. Arguments: { id, ... }.
-- Answers { now, row or nil, ... }; a row: seen, data, worker, claimed at, settled at, progress, place, due, token.

local answers = { digits(now) }
for _, id in ipairs(given) do
  local key = K .. 'j:' .. id
  local row = call('HMGET', key, 'v', 't', 's', 'z', 'd', 'a', 'w', 'i', 'e')
  if not row[3] then
    answers[#answers + 1] = false
  else
    local seen = {}
    row[4] = place_of_entry(row[3], row[4])
    for place = 1, 6 do
      seen[place] = row[place] or ''
    end
    answers[#answers + 1] = { table.concat(seen, ' '), call('GET', K .. 'r:' .. id), row[7], row[8], row[9], row[6],
      row[4], row[5], row[2] }
  end
end
return answers
