-- needs: base
-- Structures that follow from the jobs. One whose key has another type, or a value that is no number, was changed by
-- hand: it is kept under another name, and made anew from all jobs. That takes about a second for a million jobs.

local STATUSES = {
  'queued', 'started', 'success', 'failed', 'cancel', 'abort', 'interrupt', 'timeout', 'retry', 'maxretries',
}

-- Calls a function with the id and the status of each job.
local function each_job(work)
  for _, status in ipairs(STATUSES) do
    local first = 0
    repeat
      local ids = call('ZRANGE', status_index(status), first, first + MANY - 1)
      for _, id in ipairs(ids) do
        work(id, status)
      end
      first = first + MANY
    until #ids < MANY
  end
end

local function field_of(id, field)
  local value = try('HGET', key_of(id), field)
  return type(value) == 'string' and value or nil
end

local function store_numbers(key, numbers)
  for field, number in pairs(numbers) do
    call('HSET', key, field, digits(number))
  end
end

local function count(numbers, field)
  numbers[field] = (numbers[field] or 0) + 1
end

-- Totals by a field of the hash of each job, or by error group.
local function recount_by(kind)
  return function(key)
    local numbers = {}
    each_job(function(id, status)
      local name = field_of(id, kind == 'e' and 'g' or kind)
      if name and kind == 'e' then
        local exception = exception_of(id)
        name = exception and exception[1]
      end
      if name then
        count(numbers, status .. ' ' .. name)
      end
    end)
    store_numbers(key, numbers)
  end
end

local function parked_jobs()
  local found = try('HGETALL', K .. 'parked')
  return found.err and {} or found
end

local REMAKE = { -- nil: a key that is not made anew; false: one that begins empty
  ['n:q'] = recount_by('q'),
  ['n:h'] = recount_by('h'),
  ['n:g'] = recount_by('g'),
  ['n:e'] = recount_by('e'),
  ['metrics:m'] = false,
  ['metrics:h'] = false,
  x = function(key)
    each_job(function(id)
      local expiry = field_of(id, 'x')
      if tonumber(expiry) then
        call('ZADD', key, expiry, id)
      end
    end)
  end,
  ['parked-keys'] = function(key)
    local found = parked_jobs()
    for index = 2, #found, 2 do
      call('ZADD', key, 0, string.sub(found[index], 53))
    end
  end,
  ['parked-in'] = function(key)
    local found, numbers = parked_jobs(), {}
    for index = 1, #found, 2 do
      local queue = field_of(found[index], 'q')
      if queue then
        count(numbers, queue)
      end
    end
    store_numbers(key, numbers)
  end,
  running = function(key)
    local numbers = {}
    for _, member in ipairs(call('ZRANGE', K .. 'slots', 0, -1)) do
      count(numbers, string.match(member, '^%S+ (.*)$') or '')
    end
    store_numbers(key, numbers)
  end,
}

local function remake(key)
  local name = string.sub(key, #K + 1)
  set_aside(key)
  if REMAKE[name] then
    REMAKE[name](key)
  end
end

-- Makes a structure anew after a command on it has failed, if it can be. Answers whether it was.
local function mend(key, err)
  local name = string.sub(key, #K + 1)
  local is_damaged = string.find(err, 'WRONGTYPE', 1, true) or string.find(err, 'not an integer', 1, true)
    or string.find(err, 'overflow', 1, true)
  if not is_damaged or REMAKE[name] == nil then
    return false
  end
  remake(key)
  return true
end

-- Runs a command on such a structure.
local function on(command, key, ...)
  local answer = try(command, key, ...)
  if type(answer) == 'table' and answer.err then
    mend(key, answer.err)
    return call(command, key, ...) -- raises any other error
  end
  return answer
end

-- Adds to a number of such a structure, after the jobs have changed, and deletes a 0. Answers the sum; false: the
-- numbers were counted anew.
local function add_number(key, field, number)
  local sum = try('HINCRBY', key, field, number)
  if type(sum) == 'table' then
    if not mend(key, sum.err) then
      call('HINCRBY', key, field, number) -- raises the error
    end
    return false
  end
  if sum == 0 then
    call('HDEL', key, field)
  end
  return sum
end

local MOST_DIGITS = 15 -- a number of Lua has all of them

-- The fields and numbers of such a structure.
local function numbers_in(key)
  local found = on('HGETALL', key)
  for index = 2, #found, 2 do
    if not string.match(found[index], '^-?%d+$') or #found[index] > MOST_DIGITS then
      remake(key)
      return call('HGETALL', key)
    end
  end
  return found
end
