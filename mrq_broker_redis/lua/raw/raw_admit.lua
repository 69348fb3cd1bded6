-- needs: base, recounting, batch, slots, uniques, terms, records, parameters
-- Makes jobs of claimed parameters.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, lease in ms, { { parameter, job id, token, row, params, search keys or false }, ... } }
-- Answers for each: 1 admitted, 0 the claim is over, 2 a job with this id exists, and its record must be read.

local queue, until_ms = given[1], digits(now + given[2])
local answers = {}
for index, claim in ipairs(given[3]) do
  local param, id, token, row, params, keys = claim[1], claim[2], claim[3], claim[4], claim[5], claim[6]
  if call('EXISTS', K .. 'j:' .. id) == 1 then
    answers[index] = 2
  else
    local is_admitted = admit(queue, param, id, token)
    if is_admitted then
      row.d = until_ms
      insert(id, row, params, keys)
    end
    answers[index] = is_admitted and 1 or 0
  end
end
flush()
return answers
