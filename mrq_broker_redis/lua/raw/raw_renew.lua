-- needs: base, batch, slots, parameters
-- Prolongs leases. Arguments: { queue, lease in ms, { { parameter, job id, token }, ... } }. Answers 1 or 0 for each.

local queue, until_ms = given[1], now + given[2]
local answers = {}
for index, claim in ipairs(given[3]) do
  local param, id, token = claim[1], claim[2], claim[3]
  local held = holds(queue, param, id, token)
  if held == 'lease' then
    call('ZADD', until_of(queue), digits(until_ms), id)
  elseif held == 'visit' and call('ZSCORE', items_of(queue), param) then
    call('ZADD', items_of(queue), 'GT', seconds(until_ms), param)
  else
    held = nil
  end
  answers[index] = held and 1 or 0
end
return answers
