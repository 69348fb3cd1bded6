-- needs: base, recounting
-- Changes of the structures beside the jobs. A script gathers them, and flush() writes them: sums and members once for
-- the whole batch, not once for each job.

local removed, added, sums, tallies, touched, woken, freed = {}, {}, {}, {}, {}, {}, {}

local function remove_later(key, member)
  local members = removed[key]
  if not members then
    members = {}
    removed[key] = members
  end
  members[#members + 1] = member
end

local function add_later(key, score, member)
  local members = added[key]
  if not members then
    members = {}
    added[key] = members
  end
  members[#members + 1] = score
  members[#members + 1] = member
end

-- Adds to a field of a hash of numbers; flush() deletes a field that becomes 0.
local function sum_later(key, field, number)
  local fields = sums[key]
  if not fields then
    fields = {}
    sums[key] = fields
  end
  fields[field] = (fields[field] or 0) + number
end

-- Adds to the totals of a status, by queue and by path.
local function count_later(queue, path, status, number)
  local paths = tallies[queue]
  if not paths then
    paths = {}
    tallies[queue] = paths
  end
  local statuses = paths[path]
  if not statuses then
    statuses = {}
    paths[path] = statuses
  end
  statuses[status] = (statuses[status] or 0) + number
end

-- Changes of status. Most jobs of a batch have the same queue, path and statuses, and are counted together.
local moved = { number = 0 }

local function count_moved()
  if moved.number > 0 then
    count_later(moved.queue, moved.path, moved.from, -moved.number)
    count_later(moved.queue, moved.path, moved.to, moved.number)
    moved.number = 0
  end
end

local function count_move_later(queue, path, from, to)
  if moved.path ~= path or moved.queue ~= queue or moved.from ~= from or moved.to ~= to then
    count_moved()
    moved.queue, moved.path, moved.from, moved.to = queue, path, from, to
  end
  moved.number = moved.number + 1
end

local function sum_tallies()
  count_moved()
  for queue, paths in pairs(tallies) do
    for path, statuses in pairs(paths) do
      for status, number in pairs(statuses) do
        sum_later(K .. 'n:q', status .. ' ' .. queue, number)
        sum_later(K .. 'n:h', status .. ' ' .. path, number)
      end
    end
  end
  tallies = {}
end

-- The entries of the queue change: flush() updates its subqueue in the tree.
local function touch(queue)
  if string.find(queue, '/', 1, true) then
    touched[queue] = true
  end
end

local WAKE_MOST, WAKE_MS = 32, 2000

-- Wakes one more worker that waits for the queue. `due`: the due time of a job, which may be later than now.
local function wake(queue, due)
  local tokens = woken[queue]
  if not tokens then
    tokens = {}
    woken[queue] = tokens
  end
  if #tokens < WAKE_MOST then
    tokens[#tokens + 1] = due and tonumber(due) > now and '0' or '1'
  end
end

local function in_parts(command, key, values)
  for first = 1, #values, MANY do
    on(command, key, unpack(values, first, math.min(first + MANY - 1, #values)))
  end
end

-- Each name has its list, because a shared list would give a token to a worker that cannot use it.
local function send_wakes()
  local lists = {}
  for queue, tokens in pairs(woken) do
    for _, name in ipairs(names_for(queue)) do
      local list = lists[name]
      if not list then
        list = {}
        lists[name] = list
      end
      for index = 1, math.min(#tokens, WAKE_MOST - #list) do
        list[#list + 1] = tokens[index]
      end
    end
  end
  for name, tokens in pairs(lists) do
    local key = K .. 'wake:' .. name
    if call('RPUSH', key, unpack(tokens)) > WAKE_MOST then
      call('LTRIM', key, -WAKE_MOST, -1)
    end
    call('PEXPIRE', key, WAKE_MS)
  end
  woken = {}
end

-- The due time of the first waiting job of a queue, and the end of its first lease; nil for none.
local function heads_of(queue)
  local waiting
  for _, rank in ipairs(ranks()) do
    local head = call('ZRANGE', waiting_line(queue, rank), 0, 0, 'WITHSCORES')
    local due = tonumber(head[2])
    if due and (not waiting or due < waiting) then
      waiting = due
    end
  end
  return waiting, tonumber(call('ZRANGE', claimed_line(queue), 0, 0, 'WITHSCORES')[2])
end

-- Updates the subqueues of trees: `ready` has the subqueues with due jobs, by name, `later` the others, by due time.
-- A subqueue stays ready until its queue is changed again.
local function refresh_touched()
  for queue in pairs(touched) do
    local tree = tree_of(queue)
    local ready, later = K .. 'ready:' .. tree, K .. 'later:' .. tree
    local waiting, claimed = heads_of(queue)
    local due = waiting and claimed and math.min(waiting, claimed) or waiting or claimed
    if not due then
      call('ZREM', ready, queue)
      call('ZREM', later, queue)
    elseif due <= now then
      call('ZADD', ready, 0, queue)
      call('ZREM', later, queue)
    else
      call('ZADD', later, digits(due), queue)
      call('ZREM', ready, queue)
    end
  end
  touched = {}
end

local release_parked -- in slots

local function flush()
  for key, members in pairs(removed) do
    in_parts('ZREM', key, members)
  end
  for key, members in pairs(added) do
    in_parts('ZADD', key, members)
  end
  sum_tallies()
  for key, fields in pairs(sums) do
    for field, number in pairs(fields) do
      if number ~= 0 and not add_number(key, field, number) then
        break -- all were counted anew
      end
    end
  end
  removed, added, sums = {}, {}, {}
  local slots_freed = freed
  freed = {}
  for key, number in pairs(slots_freed) do
    release_parked(key, number, true)
  end
  refresh_touched()
  send_wakes()
end
