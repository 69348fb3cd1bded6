-- needs: base
-- The rows of jobs. Arguments: { id, ... }.
-- Answers { now, row or nil, ... }; a row: seen, record with params and outcome, how long the record is, and its params,
-- worker, claimed at, settled at, progress, place, due, token, expiry.

local answers = { digits(now) }
for _, id in ipairs(given) do
  local key = K .. 'j:' .. id
  local row = call('HMGET', key, 'v', 't', 's', 'z', 'd', 'a', 'R', 'P', 'w', 'i', 'e', 'x')
  if not row[7] then
    answers[#answers + 1] = false
  else
    local seen = {}
    row[4] = place_of_entry(row[3], row[4])
    for place = 1, 6 do
      seen[place] = row[place] or ''
    end
    answers[#answers + 1] = { table.concat(seen, ' '), call('GET', K .. 'r:' .. id), row[7], row[8], row[9], row[10],
      row[11], row[6], row[4], row[5], row[2], row[12] }
  end
end
return answers
