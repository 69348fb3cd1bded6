-- needs: base, recounting, batch, slots, limits, uniques, terms, trees, claiming
-- Claims due jobs for a worker.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: the arguments of claiming, and then the number of earlier lost claims
--   with which the next one ends a job; for a worker that leaves out tasks also two lists of patterns of tasks, the
--   denied and the allowed; a pattern is a path, or 'module.*'
-- Answers as claiming. A suspect is an id: of each job that must end, and of as many others as may be claimed.
-- Claimed jobs are answered as their data.

local most_lost = given[13]
local now_text, taken_keys = digits(now), {}
local may_run = 0 -- the number of chosen suspects that may be claimed

local denied = given[14] and as_set(given[14])
local allowed = given[15] and #given[15] > 0 and as_set(given[15])
local has_pauses = false
for name in pairs(rules) do
  has_pauses = has_pauses or string.sub(name, 1, 5) == 'task:'
end

-- Whether a path or a part of it, as 'module.*', is in the set.
local function matches(path, patterns)
  if patterns[path] then
    return true
  end
  local dot = string.find(path, '.', 1, true)
  while dot do
    if patterns[string.sub(path, 1, dot) .. '*'] then
      return true
    end
    dot = string.find(path, '.', dot + 1, true)
  end
  return false
end

-- Whether this worker leaves the jobs of a task to other workers.
local function leaves(path)
  return allowed and not matches(path, allowed) or matches(path, denied)
end

-- Whether the task of a job is paused.
local function is_paused(path)
  return has_pauses and rules['task:' .. path] ~= nil
end

-- Notes a due job without status or path as damaged, unless it was deleted by hand.
local function gone_or_damaged(id, queue)
  return call('EXISTS', K .. 'j:' .. id, K .. 'r:' .. id) == 0 and GONE or note_damaged(id, queue)
end

-- A suspect that seems to end needs no slots. Where suspects are left, the driver has found that it does not end.
consider_suspect = function(id, queue, chosen)
  local row = try('HMGET', K .. 'j:' .. id, 'f', 'L', 'l', 's', 'h')
  if not (row[4] and row[5]) then
    if gone_or_damaged(id, queue) == GONE then
      call('ZREM', claimed_line(queue), id)
    end
    return
  end
  local keys = row[3] and keys_in(row[3])
  if row[3] and not keys then
    note_damaged(id, queue)
    return
  end
  local ends = row[1] and string.find(row[1], '[co]') or (tonumber(row[2] or 0) or most_lost) >= most_lost
  if (leave_suspects or not ends) and (is_paused(row[5]) or keys and not has_slots(id, keys)) then
    put_off(id, queue)
  elseif denied and not ends and leaves(row[5]) then
    return
  elseif not leave_suspects and (ends or may_run < math.min(limit, most_suspects)) then
    chosen[#chosen + 1] = id
    may_run = may_run + (ends and 0 or 1)
  end
end

-- Passes the limits of a job, frees a unique key that ends with the claim, and forgets the exception of the attempt
-- before. Answers the number of the claim; nil: the limits leave no room; false: the job is damaged.
local function prepare_to_take(id, key, queue, rank, status)
  local row = call('HMGET', key, 'n', 'l', 'b', 'u', 'm', 'g')
  local claims, keys = tonumber(row[1] or 0), row[2] and keys_in(row[2])
  if not claims or (row[2] and not keys) or (row[3] and not tonumber(row[3])) then
    return false
  end
  if not pass_limits(id, key, queue, rank, keys, row[3]) then
    return nil
  end
  if row[5] == 'queued' and row[4] then
    release(id, row[4])
  end
  if row[6] then
    call('HDEL', key, 'g')
    move_exception(id, { g = row[6], s = status }, {})
  end
  return claims + 1
end

take = function(id, key, queue, rank)
  local row = try('HMGET', key, 's', 'h', 'o')
  local status, path = row[1], row[2]
  if not (status and path) then
    return gone_or_damaged(id, queue)
  end
  if denied and leaves(path) then
    return DENIED
  end
  if has_pauses and is_paused(path) then
    park(id, queue, rank, call('ZSCORE', waiting_line(queue, rank), id), 'task:' .. path)
    return BLOCKED
  end
  local count = 1
  if row[3] then
    count = prepare_to_take(id, key, queue, rank, status)
    if not count then
      return count == nil and BLOCKED or note_damaged(id, queue)
    end
  end
  call('HSET', key, 's', 'started', 't', string.format('%d.%s%03x', count, nonce, number), 'w', worker,
    'd', until_ms, 'i', now_text)
  remove_later(status_index(status), id)
  add_later(status_index('started'), '0', id)
  count_move_later(queue, path, status, 'started')
  taken_keys[number + 1] = K .. 'r:' .. id
  return TAKEN
end

local chosen = suspects()
if #chosen > 0 then
  return { 'suspects', digits(now), chosen, damaged }
end
local swept = take_due()
return taken(number > 0 and call('MGET', unpack(taken_keys)) or {}, swept)
