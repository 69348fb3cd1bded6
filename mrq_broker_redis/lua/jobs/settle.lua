-- needs: base, recounting, batch
-- Settles claims with success, where that changes only the job itself.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, token, outcome, ttl in ms or -1 }, ... }
-- Answers for each: 1 done, 0 refused because the job does not exist, 2 the record must be read.

local answers, now_text, expiries, expiry_by_ttl = {}, digits(now), K .. 'x', {}
local started, success = status_index('started'), status_index('success')

-- Whether a success changes only the job itself.
local function is_plain(key)
  local row = call('HMGET', key, 'l', 'u', 'f', 'm')
  return not (row[1] or (row[2] and row[4] ~= 'record') or string.find(row[3] or '', 'c', 1, true))
end

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
  local row = try('HMGET', key, 's', 't', 'q', 'h', 'o')
  if not row[1] then
    answers[index] = call('EXISTS', key) * 2
  elseif row[1] ~= 'started' or row[2] ~= token or not (row[3] and row[4]) or (row[5] and not is_plain(key)) then
    answers[index] = 2
  else
    local appended = try('APPEND', K .. 'r:' .. id, outcome)
    if type(appended) == 'table' then
      if not string.find(appended.err, 'WRONGTYPE', 1, true) then
        return appended
      end
      answers[index] = 2
    end
  end
  if not answers[index] then
    local queue, path = row[3], row[4]
    if ttl >= 0 then
      local expiry = expiry_after(ttl)
      call('HSET', key, 's', 'success', 'e', now_text, 'x', expiry)
      add_later(expiries, expiry, id)
    else
      call('HSET', key, 's', 'success', 'e', now_text)
    end
    remove_later(claimed_line(queue), id)
    remove_later(started, id)
    add_later(success, '0', id)
    count_move_later(queue, path, 'started', 'success')
    touch(queue)
    answers[index] = 1
  end
end
flush()
return answers
