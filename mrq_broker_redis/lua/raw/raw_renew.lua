-- needs: base, recounting, batch, slots, parameters
-- Extends leases to now + lease.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, lease in ms, { { parameter, job id, token }, ... } }
-- Answers for each 1, or 0 where the claim is over.

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
