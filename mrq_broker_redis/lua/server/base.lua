-- What every script begins with.
-- KEYS[1]: the prefix in braces, which every other key begins with: on a cluster all of them are on one node.
-- ARGV[1]: the time in Unix milliseconds, 0 for this server's clock.
-- ARGV[2]: the arguments of the script, as msgpack.

local K = KEYS[1] .. ':'
local call = redis.call
local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local given = cmsgpack.unpack(ARGV[2])

local MANY = 1000 -- how many values one command is given: Lua's stack is bounded

-- A job's hash, and its data: see jobs.
local function key_of(id)
  return K .. 'j:' .. id
end

local function data_of(id)
  return K .. 'r:' .. id
end

-- A number with all its digits: tostring() keeps fourteen.
local function digits(number)
  return string.format('%.0f', number)
end

-- The tree that a subqueue is in; nil for a queue that is in none.
local function tree_of(queue)
  return string.match(queue, '^[^/]*/')
end

-- What a worker may want in order to be given the queue's jobs: the queue, and each tree that it is in.
local function names_for(queue)
  local names = { queue }
  for place in string.gmatch(queue, '()/') do
    names[#names + 1] = string.sub(queue, 1, place)
  end
  return names
end

-- The sorted set of those that wait in a queue at one priority, by the time at which they are due.
local function waiting_line(queue, rank)
  return K .. 'w:' .. rank .. ':' .. queue
end

-- The ranks of jobs so far, in order. Most projects use one rank, and then one sorted set a queue is read, not nine.
-- ranks: set of those other than 0.
local ranks_known

local function ranks()
  if not ranks_known then
    ranks_known = { 0 }
    for _, rank in ipairs(call('SMEMBERS', K .. 'ranks')) do
      ranks_known[#ranks_known + 1] = tonumber(rank)
    end
    table.sort(ranks_known)
  end
  return ranks_known
end

-- To be called before a job is put into a line.
local function note_rank(rank)
  if rank ~= '0' and call('SADD', K .. 'ranks', rank) == 1 then
    ranks_known = nil
  end
end

-- Where a job's entry stands: w waiting, c claimed, p parked, '' nowhere. The field z says so where it is none of the
-- usual places: a job that has just been stored waits, one that is started is claimed.
local function place_of_entry(status, z)
  if status == 'started' then
    return 'c'
  elseif status == 'success' then
    return ''
  end
  return z or 'w'
end

-- The params in a job's data, with their length; see jobs.
local function params_in(data)
  local first = struct.unpack('>I4', data) + 5
  return string.sub(data, first, first + 3 + struct.unpack('>I4', data, first))
end

-- Names of keys that a batch uses again and again: joining strings costs more than looking one up.
local claimed_lines, indexes, other_indexes = {}, {}, {}

-- The sorted set of a queue's claimed jobs, by the end of their leases.
local function claimed_line(queue)
  local line = claimed_lines[queue]
  if not line then
    line = K .. 'c:' .. queue
    claimed_lines[queue] = line
  end
  return line
end

-- The sorted set of the jobs with one value of a field.
local function index_of(kind, value)
  local names = other_indexes[kind]
  if not names then
    names = {}
    other_indexes[kind] = names
  end
  local index = names[value]
  if not index then
    index = K .. 'i:' .. kind .. ':' .. value
    names[value] = index
  end
  return index
end

-- The sorted set of the jobs of one status.
local function status_index(status)
  local index = indexes[status]
  if not index then
    index = K .. 'i:s:' .. status
    indexes[status] = index
  end
  return index
end
