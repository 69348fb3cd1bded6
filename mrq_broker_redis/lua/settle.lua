-- needs: base, batch, limits, jobs
-- Ends claims with success where that concerns nothing but the job itself.
-- Arguments: { { id, token, outcome, ttl in ms or -1 }, ... }
-- Answers for each: 1 done; 0 refused, there is no such job; 2 the record has to be looked at.

local answers, now_text, expiries, expiry_by_ttl = {}, digits(now), K .. 'x', {}

local function expiry_after(ttl)
  local expiry = expiry_by_ttl[ttl]
  if not expiry then
    expiry = digits(now + ttl)
    expiry_by_ttl[ttl] = expiry
  end
  return expiry
end

for index, one in ipairs(given) do
  local id, token, outcome, ttl = one[1], one[2], one[3], one[4]
  local key = K .. 'j:' .. id
  local row = call('HMGET', key, 's', 't', 'q', 'h', 'l', 'u', 'f')
  if not row[1] then
    answers[index] = 0
  elseif row[1] ~= 'started' or row[2] ~= token or row[5] or row[6] or string.find(row[7] or '', 'c', 1, true) then
    answers[index] = 2
  else
    local queue, path = row[3], row[4]
    if ttl >= 0 then
      local expiry = expiry_after(ttl)
      call('HSET', key, 's', 'success', 'e', now_text, 'x', expiry)
      add_later(expiries, expiry, id)
    else
      call('HSET', key, 's', 'success', 'e', now_text)
    end
    call('APPEND', K .. 'r:' .. id, outcome)
    remove_later(claimed_line(queue), id)
    remove_later(status_index('started'), id)
    add_later(status_index('success'), 0, id)
    count_later(queue, path, 'started', -1)
    count_later(queue, path, 'success', 1)
    touch(queue)
    answers[index] = 1
  end
end
flush()
return answers
