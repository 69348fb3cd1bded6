-- needs: base
-- Writes the progress of claimed jobs.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, token, progress }, ... }
-- Answers for each 1, or 0 where the claim is over.

local answers = {}
for index, one in ipairs(given) do
  local key = K .. 'j:' .. one[1]
  local row = try('HMGET', key, 's', 't')
  if row[1] == 'started' and row[2] == one[2] then
    call('HSET', key, 'a', digits(now) .. ' ' .. one[3])
    answers[index] = 1
  else
    answers[index] = 0
  end
end
return answers
