-- needs: base
-- What a filter looks at. Arguments: { { id, ... }, whether params are wanted }.
-- Answers { now, row or nil, ... }; a row: queue, path, status, worker, exception type, schedule, expiry, params.

local answers = { digits(now) }
for _, id in ipairs(given[1]) do
  local row
  if given[2] then
    row = call('HMGET', K .. 'j:' .. id, 'q', 'h', 's', 'w', 'g', 'y', 'x', 'Q', 'R', 'P')
    if row[1] then
      local first, length = tonumber(row[9]), tonumber(row[10])
      row[9] = length > 0 and call('GETRANGE', K .. 'r:' .. id, first, first + length - 1)
      row[10] = nil
    end
  else
    row = call('HMGET', K .. 'j:' .. id, 'q', 'h', 's', 'w', 'g', 'y', 'x', 'Q')
  end
  answers[#answers + 1] = row[1] and row
end
return answers
