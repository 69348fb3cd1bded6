-- needs: base, recounting, batch, slots, parameters
-- Claims due parameters.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, kind, limit, lease in ms, pushback in ms or -1, { id, ... }, nonce }
-- Answers { parameter, job id, token, score or '', 1 if it was claimed before, ... }.

local queue, kind, limit, lease_ms, pushback, ids, nonce = unpack(given)
local key = items_of(queue)
local answers, number = {}, 0

local function answer(param, id, count, score, again)
  local token = string.format('%d.%s%03x', count, nonce, number)
  number = number + 1
  for _, value in ipairs({ param, id, token, score, again }) do
    answers[#answers + 1] = value
  end
  return token
end

for _, id in ipairs(call('ZRANGEBYSCORE', until_of(queue), '-inf', now, 'LIMIT', 0, limit)) do
  local lease = lease_of(queue, id)
  local count = lease and tonumber(string.match(lease[3], '^%d+'))
  if count then
    local token = answer(lease[1], id, count + 1, lease[2], 1)
    keep_lease(queue, id, { lease[1], lease[2], token, false }, now + lease_ms)
  else
    set_lease_aside(queue, id)
  end
end

local room = limit - number
local found = {}
if room > 0 then
  if kind == '_raw' then
    for _, param in ipairs(call('LRANGE', key, 0, room - 1)) do
      found[#found + 1] = { param, '' }
    end
    call('LTRIM', key, #found, -1)
  elseif kind == '_set' then
    for _, param in ipairs(call('SPOP', key, room)) do
      found[#found + 1] = { param, '' }
    end
  else
    local last = kind == '_timed_set' and seconds(now) or '+inf'
    local members = call('ZRANGEBYSCORE', key, '-inf', last, 'WITHSCORES', 'LIMIT', 0, room)
    local taken = {}
    for index = 1, #members, 2 do
      found[#found + 1] = { members[index], members[index + 1] }
      taken[#taken + 1] = members[index]
    end
    if pushback < 0 and #taken > 0 then
      in_parts('ZREM', key, taken)
    end
  end
end
for index, item in ipairs(found) do
  local param, score, id = item[1], item[2], ids[index]
  if pushback < 0 then
    local token = answer(param, id, 1, score, 0)
    keep_lease(queue, id, { param, score, token, false }, now + lease_ms)
    call('HDEL', visits_of(queue), param)
  else
    local visit = call('HGET', visits_of(queue), param)
    local count = (visit and tonumber(string.match(visit, '^%d+')) or 0) + 1
    local token = answer(param, id, count, score, 0)
    call('HSET', visits_of(queue), param, count .. ' ' .. id .. ':' .. token)
    call('ZADD', key, seconds(now + pushback), param)
  end
end
return answers
