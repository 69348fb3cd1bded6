-- The start of every script: its keys and arguments, and the names of keys.
-- KEYS[1]: the prefix in braces. All keys begin with it, so that a cluster keeps them on one node.
-- ARGV[1]: the time in Unix milliseconds, or 0 for the clock of this server.
-- ARGV[2]: the arguments of the script, as msgpack. The header of each script lists them unpacked.

local K = KEYS[1] .. ':'
local call = redis.call
local try = redis.pcall -- for a key that may have another type: the answer is then a table without values
local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local given = cmsgpack.unpack(ARGV[2])

local MANY = 1000 -- values of one command: Lua's stack is bounded

-- The hash and the data of a job; see records.
local function key_of(id)
  return K .. 'j:' .. id
end

local function data_of(id)
  return K .. 'r:' .. id
end

-- A number with all its digits. tostring() keeps fourteen.
local function digits(number)
  return string.format('%.0f', number)
end

-- The tree of a subqueue; nil for a queue without a tree.
local function tree_of(queue)
  return string.match(queue, '^[^/]*/')
end

-- The names under which workers claim from a queue: the queue, and each tree that contains it.
local function names_for(queue)
  local names = { queue }
  for slash in string.gmatch(queue, '()/') do
    if slash < #queue then
      names[#names + 1] = string.sub(queue, 1, slash)
    end
  end
  return names
end

-- The sorted set of the waiting entries of a queue at one priority, by due time.
local function waiting_line(queue, rank)
  return K .. 'w:' .. rank .. ':' .. queue
end

-- The ranks of jobs so far, in order. Most projects use one rank, and then one sorted set a queue is read, not nine.
-- ranks: set of the ranks other than 0.
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

-- Stores the rank. Called before an entry is added to its sorted set.
local function note_rank(rank)
  if rank ~= '0' and call('SADD', K .. 'ranks', rank) == 1 then
    ranks_known = nil
  end
end

-- The state of a job's entry: w waiting, c claimed, p parked, '' no entry. The field z holds a state that does not
-- follow from the status: a started job is claimed, a success has no entry, any other job waits.
local function entry_state(status, z)
  if status == 'started' then
    return 'c'
  elseif status == 'success' then
    return ''
  end
  return z or 'w'
end

local LOST_PARAMS = '\0\0\0\4lost' -- in place of params that are gone: no JSON, so that no job runs with other params

-- The params in a job's data, with their length; see records.
local function params_in(data)
  if type(data) ~= 'string' or #data < 8 then
    return LOST_PARAMS
  end
  local first = struct.unpack('>I4', data) + 5
  local last = first + 3 <= #data and first + 3 + struct.unpack('>I4', data, first) or #data + 1
  return last <= #data and string.sub(data, first, last) or LOST_PARAMS
end

-- The limit keys of a job, or another stored list (msgpack); nil if the list is damaged.
local function keys_in(packed)
  local is_read, keys = pcall(cmsgpack.unpack, packed)
  return is_read and type(keys) == 'table' and keys or nil
end

-- The stored exception of a job: its parts and the text; nil if there is none, or if it is damaged. See terms.
local function exception_of(id)
  local packed = try('GET', K .. 'e:' .. id)
  local parts = type(packed) == 'string' and keys_in(packed)
  if not parts or type(parts[1] or '') ~= 'string' or type(parts[2]) ~= 'table' then
    return nil
  end
  for name, values in pairs(parts[2]) do
    if type(name) ~= 'string' or type(values) ~= 'table' then
      return nil
    end
    for _, value in pairs(values) do
      if type(value) ~= 'string' then
        return nil
      end
    end
  end
  return parts, packed
end

-- Keeps a damaged key under another name.
local function set_aside(key)
  local name = 'damaged:' .. string.sub(key, #K + 1)
  call('RENAME', key, K .. name)
  call('SADD', K .. 'damaged', name)
end

-- Names of keys that a batch uses often: a table look-up costs less than joining strings.
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
