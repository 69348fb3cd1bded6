-- needs: base, recounting, batch, slots, limits, trees
-- A claim of jobs or of entries: queues and trees, suspects, limits, parked jobs.
-- ARGV[2] of both begins with { worker, limit, lease in ms, most suspects to claim, wanted, limits, nonce,
--   rotation, parked after, sweep every ms, last swept at ms, whether to leave suspects, ... }
--   wanted: { { name, quota or -1, reverse, { excluded } } }
--   limits: { rule = { concurrency or -1, interval in us or 0, tolerance in us } }, with the rules of paused tasks
--   rotation: { tree = the subqueue that was served last }
--   parked after: the limit key that the last sweep ended with, or ''
-- Both answer { 'suspects', now, { suspect, ... }, damaged } where expired leases must be handled first, and otherwise
--   { 'taken', now, { claimed, ... }, next due or nil, { tree, last served, ... }, parked after, swept }, with 1 at the
--   end where all due jobs that the call met are of tasks that the worker leaves out, otherwise 0, and then the damaged;
--   without both, nothing follows
--   damaged: { id, queue, ... } of the jobs that cannot be read, which stay where they are
-- The script sets the two functions below, calls suspects(), and, if it finds none, take_due().

local consider_suspect -- (id, queue, chosen): handles an expired lease; see put_off()
local take -- (id, key, queue, rank): tries to claim a due entry, and answers with one of these:
local TAKEN, BLOCKED, GONE, DENIED, DAMAGED = 1, 2, 3, 4, 5

local worker, limit, lease, most_suspects, wanted = given[1], given[2], given[3], given[4], given[5]
rules = given[6]
local nonce, rotation, parked_after = given[7], given[8], given[9]
local may_sweep = now - given[11] >= given[10] or now < given[11]
local leave_suspects = given[12]

local MAX_SUSPECTS, SUSPECT_PAUSE, MAX_KEYS = 20, 1000, 20
local until_ms = digits(now + lease)
local may_block = math.max(100, 4 * limit)
local may_step_over, has_blocked, has_stepped_over = may_block, false, false

local damaged = {}

local function note_damaged(id, queue)
  damaged[#damaged + 1] = id
  damaged[#damaged + 1] = queue
  return DAMAGED
end

-- Queues --------------------------------------------------------------------------------------------

local choice, goes_on, served = {}, false, {} -- choice: names by the index in `wanted`

local function choose_queues()
  for index, one in ipairs(wanted) do
    local name, excluded = one[1], as_set(one[4])
    if not is_tree(name) then
      choice[index] = is_excluded(name, excluded) and {} or { name }
    else
      promote(name)
      local names, last, further = resolve(name, excluded, rotation[name] or '')
      if #names == 0 then
        served[#served + 1] = name
        served[#served + 1] = last
      end
      goes_on = goes_on or further
      choice[index] = names
    end
  end
end

-- Suspects ------------------------------------------------------------------------------------------

-- Postpones a suspect whose limits leave no room.
local function put_off(id, queue)
  call('ZADD', claimed_line(queue), digits(now + SUSPECT_PAUSE), id)
  touch(queue)
end

-- The suspects that the driver must handle before the claim takes anything.
local function suspects()
  choose_queues()
  local chosen, seen = {}, {}
  for _, names in ipairs(choice) do
    for _, name in ipairs(names) do
      if not seen[name] then
        seen[name] = true
        local line = claimed_line(name)
        for _, id in ipairs(call('ZRANGEBYSCORE', line, '-inf', now, 'LIMIT', 0, MAX_SUSPECTS)) do
          consider_suspect(id, name, chosen)
        end
      end
    end
  end
  if #chosen > 0 then
    flush()
  end
  return chosen
end

-- Waiting jobs --------------------------------------------------------------------------------------

local number, given_by_queue = 0, {}

local function is_blocked(id, queue, rank, keys, allowed_ms)
  local key = full_key(keys)
  if key then
    park(id, queue, rank, call('ZSCORE', waiting_line(queue, rank), id), key)
    return true
  end
  local is_reserved = allowed_ms and tonumber(allowed_ms) <= now -- an earlier claim has reserved this time for it
  if not (is_reserved and may_start(keys)) then
    allowed_ms, key = reserve_allowed_ms(keys, id, queue, rank, is_reserved)
    if key then
      park(id, queue, rank, call('ZSCORE', waiting_line(queue, rank), id), key)
      return true
    end
    if allowed_ms > now then
      call('ZADD', waiting_line(queue, rank), digits(allowed_ms), id)
      call('HSET', K .. 'j:' .. id, 'd', digits(allowed_ms), 'b', digits(allowed_ms), 'o', '1')
      touch(queue)
      return true
    end
  end
  took(keys)
  starts(keys)
  return false
end

-- Whether the limit keys of a job, if any, allow its claim now; if so, the job gets its slots.
-- allowed_ms: the time at which a rate lets the job start, as an earlier claim has reserved it, or false.
local function pass_limits(id, key, queue, rank, keys, allowed_ms)
  if keys and is_blocked(id, queue, rank, keys, allowed_ms) then
    return false
  end
  if allowed_ms then
    call('HDEL', key, 'b')
  end
  if keys then
    take_slots(id, keys, until_ms)
  end
  return true
end

local function take_from(queue, rank, room, reverse)
  local line, claimed = waiting_line(queue, rank), claimed_line(queue)
  local before, first = number, 0 -- first: the number of jobs that are left out, which stay in front
  while room > 0 and may_block > 0 and may_step_over > 0 do
    local ids
    if reverse then
      ids = call('ZREVRANGEBYSCORE', line, now, '-inf', 'LIMIT', first, room)
    else
      ids = call('ZRANGEBYSCORE', line, '-inf', now, 'LIMIT', first, room)
    end
    if #ids == 0 then
      break
    end
    local out = {}
    for _, id in ipairs(ids) do
      local became = take(id, K .. 'j:' .. id, queue, rank)
      if became == DENIED or became == DAMAGED then
        first = first + 1
        has_stepped_over = has_stepped_over or became == DENIED
        may_step_over = may_step_over - 1
        if may_step_over <= 0 then
          break
        end
      elseif became == BLOCKED then
        has_blocked = true
        may_block = may_block - 1
        if may_block <= 0 then
          break
        end
      else
        out[#out + 1] = id
        if became == TAKEN then
          add_later(claimed, until_ms, id)
          room = room - 1
          number = number + 1
        end
      end
    end
    if #out > 0 then
      in_parts('ZREM', line, out)
      touch(queue)
    end
  end
  return number - before
end

local function room_in(index)
  local room, quota = limit - number, wanted[index][2]
  if quota >= 0 then
    room = math.min(room, quota - (given_by_queue[index] or 0))
  end
  return room
end

local function take_waiting()
  local seen = {}
  for index, names in ipairs(choice) do
    for _, name in ipairs(names) do
      if room_in(index) <= 0 or may_block <= 0 then
        break
      end
      if not seen[name] then -- a queue may be wanted twice, by its name and in a tree
        seen[name] = true
        for _, rank in ipairs(ranks()) do
          local got = take_from(name, rank, room_in(index), wanted[index][3])
          given_by_queue[index] = (given_by_queue[index] or 0) + got
          if got > 0 then
            given_by_queue[name] = true
          end
        end
      end
    end
  end
end

-- Releases parked jobs whose limits have room, by limit key, after the key of the last sweep.
local function sweep()
  local keys = on('ZRANGEBYLEX', K .. 'parked-keys', '(' .. parked_after, '+', 'LIMIT', 0, MAX_KEYS)
  local most, gone = math.max(100, 4 * limit), 0
  for _, key in ipairs(keys) do
    local room = room_to_let_go(key)
    local allowed = math.min(room or most, most - gone)
    gone = gone + release_parked(key, allowed)
  end
  parked_after = #keys == MAX_KEYS and keys[MAX_KEYS] or ''
  return gone > 0
end

-- Claims due jobs; answers whether it swept the parked jobs.
local function take_due()
  free_expired_slots() -- after the suspects: an entry that is claimed again keeps its slot
  flush()
  take_waiting()
  local swept = false
  if call('EXISTS', K .. 'parked-keys') == 1 then
    local has_room = number < limit and may_block > 0
    if has_room or may_sweep then
      swept = true
      flush()
      write_rates()
      if sweep() and has_room then
        flush()
        take_waiting()
      end
    end
  end
  flush()
  write_rates()
  return swept
end

-- Notes the subqueue of each tree that was served last.
local function note_rotation()
  for index, names in ipairs(choice) do
    if is_tree(wanted[index][1]) and #names > 0 then
      local last = names[#names]
      for position = #names, 1, -1 do
        if given_by_queue[names[position]] then
          last = names[position]
          break
        end
      end
      served[#served + 1] = wanted[index][1]
      served[#served + 1] = last
    end
  end
end

-- The answer of a claim, after take_due().
local function taken(what, swept)
  note_rotation()
  local due, opens = goes_on and now or next_due(wanted, most_suspects > 0 and -1 or now), opens_at()
  if opens then
    due = math.min(due or opens, opens)
  end
  if number == 0 and limit > 0 then -- the remaining tokens belong to jobs that are gone
    for _, one in ipairs(wanted) do
      call('DEL', K .. 'wake:' .. one[1])
    end
  end
  local is_denied = has_stepped_over and not has_blocked and number == 0
  local answer = { 'taken', digits(now), what, due and digits(due) or false, served, parked_after, swept and 1 or 0 }
  if is_denied or #damaged > 0 then
    answer[8], answer[9] = is_denied and 1 or 0, damaged
  end
  return answer
end
