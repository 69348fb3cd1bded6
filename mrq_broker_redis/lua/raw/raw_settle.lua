-- needs: base, recounting, batch, slots, parameters
-- Ends claims of parameters without a job.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, { { parameter, job id, token, delay }, ... } }
--   delay: ms until the parameter is due again, or -1 to end it
-- Answers for each 1, or 0 where the claim is over.

local queue = given[1]
local answers = {}
for index, claim in ipairs(given[2]) do
  local param, id, token, delay = claim[1], claim[2], claim[3], claim[4]
  local held = holds(queue, param, id, token)
  if held == 'lease' then
    if delay < 0 then
      drop_lease(queue, id)
    else
      local lease = lease_of(queue, id)
      lease[4] = true
      keep_lease(queue, id, lease, now + delay)
    end
  elseif held == 'visit' then
    if delay < 0 then
      call('ZREM', items_of(queue), param)
      call('HDEL', visits_of(queue), param)
    else
      call('ZADD', items_of(queue), 'XX', seconds(now + delay), param)
      end_visit(queue, param)
    end
  end
  if held then
    call('ZADD', K .. 'raw-settled', now, id .. ':' .. token)
    if delay >= 0 then
      wake(queue)
    end
  elseif call('ZSCORE', K .. 'raw-settled', id .. ':' .. token) then
    held = true
  end
  answers[index] = held and 1 or 0
end
flush()
return answers
