-- needs: base, batch, limits, limiting, jobs, trees
-- Takes due jobs for a worker, in one step.
-- Arguments: { worker, limit, lease in ms, idle, wanted, limits, nonce, turns, parked turn,
--   sweep every ms, last swept at ms, most lost claims, whether suspects are to be left alone }
--   wanted: { { name, quota or -1, reverse, { excluded } } }
--   limits: { rule = { concurrency or -1, interval in us or 0, tolerance in us } }
--   turns: { tree = the subqueue that had the last turn }
-- Answers { 'suspects', now, { ids } } where jobs whose lease ran out have to be seen to first, and otherwise
--   { 'taken', now, { record and params, ... }, { how long the record is, ... }, next due or nil, suspects due, { tree, last, ... },
--     parked turn, swept }

local worker, limit, lease, idle, wanted = given[1], given[2], given[3], given[4], given[5]
rules = given[6]
local nonce, turns, parked_turn = given[7], given[8], given[9]
local may_sweep = now - given[11] >= given[10] or now < given[11]
local most_lost, leave_suspects = given[12], given[13]

local MAX_SUSPECTS, SUSPECT_PAUSE, MAX_KEYS = 20, 1000, 20
local until_ms = digits(now + lease)
local may_block = math.max(100, 4 * limit)

-- Suspects ----------------------------------------------------------------------------------------

local suspects_due = false

local function has_slots(id, keys)
  local missing = {}
  for _, key in ipairs(keys) do
    if not call('ZSCORE', K .. 'slots', id .. ' ' .. key) then
      missing[#missing + 1] = key
    end
  end
  return full_key(missing) == nil
end

-- Chooses those that must be ended, and one that an idle worker can take.
local function suspects_in(queue, chosen)
  local line = claimed_line(queue)
  for _, id in ipairs(call('ZRANGEBYSCORE', line, '-inf', now, 'LIMIT', 0, MAX_SUSPECTS)) do
    local row = call('HMGET', K .. 'j:' .. id, 'f', 'L', 'l', 's')
    local flags = row[1] or ''
    if not row[4] then
      call('ZREM', line, id)
    elseif flags ~= '' or tonumber(row[2] or 0) >= most_lost then
      if not leave_suspects then
        chosen[#chosen + 1] = id
      end
    elseif row[3] and not has_slots(id, cmsgpack.unpack(row[3])) then
      call('ZADD', line, digits(now + SUSPECT_PAUSE), id)
      touch(queue)
    elseif idle and limit > 0 and not chosen.one and not leave_suspects then
      chosen.one = id
      chosen[#chosen + 1] = id
    elseif not idle then
      suspects_due = true
    end
  end
end

-- Waiting jobs --------------------------------------------------------------------------------------

local taken_keys, lengths, number, given_by_queue = {}, {}, 0, {}

local function is_blocked(id, queue, rank, keys, turn)
  local key = full_key(keys)
  if key then
    park(id, queue, rank, call('ZSCORE', waiting_line(queue, rank), id), key)
    return true
  end
  if not turn or tonumber(turn) > now then -- and does not come at the turn it was given
    turn = turn_of(keys)
    if turn > now then
      call('ZADD', waiting_line(queue, rank), digits(turn), id)
      call('HSET', K .. 'j:' .. id, 'd', digits(turn), 'b', digits(turn))
      touch(queue)
      return true
    end
  end
  took(keys)
  return false
end

local now_text = digits(now)

local function take(id, key, queue, row)
  local count = tonumber(row[2] or 0) + 1
  local token = string.format('%d.%s%03x', count, nonce, number)
  call('HSET', key, 's', 'started', 't', token, 'w', worker, 'd', until_ms, 'i', now_text)
  if row[4] then
    call('HDEL', key, 'b')
  end
  if row[3] then
    take_slots(id, cmsgpack.unpack(row[3]), until_ms)
  end
  if row[6] == 'queued' and row[5] then
    release(id, row[5])
  end
  add_later(claimed_line(queue), until_ms, id)
  remove_later(status_index(row[7]), id)
  add_later(status_index('started'), 0, id)
  count_later(queue, row[8], row[7], -1)
  count_later(queue, row[8], 'started', 1)
  number = number + 1
  taken_keys[number] = K .. 'r:' .. id
  lengths[number] = tonumber(row[1])
end

local function take_from(queue, rank, room, reverse)
  local line = waiting_line(queue, rank)
  local before = number
  while room > 0 and may_block > 0 do
    local ids
    if reverse then
      ids = call('ZREVRANGEBYSCORE', line, now, '-inf', 'LIMIT', 0, room)
    else
      ids = call('ZRANGEBYSCORE', line, '-inf', now, 'LIMIT', 0, room)
    end
    if #ids == 0 then
      break
    end
    local out = {}
    for _, id in ipairs(ids) do
      local key = K .. 'j:' .. id
      local row = call('HMGET', key, 'R', 'n', 'l', 'b', 'u', 'm', 's', 'h')
      if not row[1] then
        out[#out + 1] = id -- a job that somebody has deleted by hand
      elseif row[3] and is_blocked(id, queue, rank, cmsgpack.unpack(row[3]), row[4]) then
        may_block = may_block - 1
        if may_block <= 0 then
          break
        end
      else
        take(id, key, queue, row)
        out[#out + 1] = id
        room = room - 1
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

local function take_waiting(choice)
  local seen = {}
  for index, names in ipairs(choice) do
    for _, name in ipairs(names) do
      if room_in(index) <= 0 or may_block <= 0 then
        break
      end
      if not seen[name] then -- a queue may be wanted twice, by name and in a tree
        seen[name] = true
        for rank = -4, 4 do
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

-- Lets parked jobs go that have room, by key from behind the last one looked at.
local function sweep()
  local keys = call('ZRANGEBYLEX', K .. 'parked-keys', '(' .. parked_turn, '+', 'LIMIT', 0, MAX_KEYS)
  local most, gone = math.max(100, 4 * limit), 0
  for _, key in ipairs(keys) do
    local room = room_under(key)
    local allowed = math.min(room or most, most - gone)
    gone = gone + let_go(key, allowed)
  end
  parked_turn = #keys == MAX_KEYS and keys[MAX_KEYS] or ''
  return gone > 0
end

-- The claim -----------------------------------------------------------------------------------------

local choice, goes_on, new_turns = {}, false, {}
for index, one in ipairs(wanted) do
  local name, excluded = one[1], as_set(one[4])
  if not is_tree(name) then
    choice[index] = is_excluded(name, excluded) and {} or { name }
  else
    promote(name)
    local names, last, further = resolve(name, excluded, turns[name] or '')
    if #names == 0 then
      new_turns[#new_turns + 1] = name
      new_turns[#new_turns + 1] = last
    end
    goes_on = goes_on or further
    choice[index] = names
  end
end

local chosen, seen = {}, {}
for _, names in ipairs(choice) do
  for _, name in ipairs(names) do
    if not seen[name] then
      seen[name] = true
      suspects_in(name, chosen)
    end
  end
end
if #chosen > 0 then
  flush()
  chosen.one = nil
  return { 'suspects', digits(now), chosen }
end

free_expired_slots() -- behind the suspects: one that is claimed again keeps its slot
flush()
take_waiting(choice)
local has_parked = call('EXISTS', K .. 'parked-keys') == 1
local swept = false
if has_parked then
  local has_room = number < limit and may_block > 0
  if has_room or may_sweep then
    swept = true
    flush()
    write_rates()
    if sweep() and has_room then
      flush()
      take_waiting(choice)
    end
  end
end
flush()
write_rates()

for index, names in ipairs(choice) do
  if is_tree(wanted[index][1]) and #names > 0 then
    local last = names[#names]
    for position = #names, 1, -1 do
      if given_by_queue[names[position]] then
        last = names[position]
        break
      end
    end
    new_turns[#new_turns + 1] = wanted[index][1]
    new_turns[#new_turns + 1] = last
  end
end

local due = goes_on and now or next_due(wanted, idle and -1 or now)
if number == 0 and limit > 0 then -- the tokens that woke nobody are about jobs that are gone
  for _, one in ipairs(wanted) do
    call('DEL', K .. 'wake:' .. one[1])
  end
end
local data = number > 0 and call('MGET', unpack(taken_keys)) or {}
return { 'taken', digits(now), data, lengths, due and digits(due) or false, suspects_due and 1 or 0, new_turns,
  parked_turn, swept and 1 or 0 }
