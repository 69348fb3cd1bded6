-- needs: base
-- Reads the rows of jobs.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers { now, row or nil, ... }; a row: seen, data, worker, claimed at, settled at, progress, state of the entry,
-- due, token.

local answers = { digits(now) }
for _, id in ipairs(given) do
  local key = K .. 'j:' .. id
  local row = call('HMGET', key, 'v', 't', 's', 'z', 'd', 'a', 'w', 'i', 'e')
  if not row[3] then
    answers[#answers + 1] = false
  else
    local seen = {}
    row[4] = entry_state(row[3], row[4])
    for index = 1, 6 do
      seen[index] = row[index] or ''
    end
    answers[#answers + 1] = { table.concat(seen, ' '), call('GET', K .. 'r:' .. id), row[7], row[8], row[9], row[6],
      row[4], row[5], row[2] }
  end
end
return answers
