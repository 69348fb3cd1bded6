-- needs: base, states
-- Reads and changes shared state.
-- state:<namespace>: hash, name to "<version> <expiry or nothing> <JSON>".  states:n: the last version.
-- states:x: sorted set, "<length of the namespace>:<namespace><name>" by expiry.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: one of these:
--   { 'get', namespace, name }. Answers the value or nil.
--   { 'list', namespace }. Answers { name, value, ... }.
--   { 'put', namespace, name, JSON, ttl in ms or -1, expected version or -1, is rule }. Answers the value, or nil for
--     another version.
--   { 'add', namespace, name, amount, ttl in ms or -1, is rule }. Answers { 1, count }, or { 0, value } for a value that
--     is no counter.
--   { 'delete', namespace, { name, ... }, is rule }. Answers 1 or 0 for each.
--   is rule: whether the namespace holds rules. A write then raises the version in the key rules:n.

local what, namespace, is_rule = given[1], given[2], given[#given]
local table_key, expiries = K .. 'state:' .. namespace, K .. 'states:x'

local function member_of(name)
  return #namespace .. ':' .. namespace .. name
end

local function get(name)
  return state_in(namespace, name)
end

-- Runs a write. A key of another type, and a counter without a number, is set aside first. Answers whether it was.
local function write(command, key, ...)
  local answer = try(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then
    return false
  end
  local is_damaged = string.find(answer.err, 'WRONGTYPE', 1, true) or string.find(answer.err, 'not an integer', 1, true)
  if is_damaged then
    set_aside(key)
  end
  call(command, key, ...) -- raises any other error, such as that of a full server
  return true
end

-- The next number of a counter. A damaged counter goes on from the time, which is later than its numbers.
local function next_number(name)
  if write('INCR', K .. name) then
    call('SET', K .. name, digits(now))
  end
  return call('GET', K .. name)
end

local function put(name, json, expiry)
  local value = next_number('states:n') .. ' ' .. (expiry and digits(expiry) or '') .. ' ' .. json
  write('HSET', table_key, name, value)
  if expiry then
    write('ZADD', expiries, digits(expiry), member_of(name))
  else
    write('ZREM', expiries, member_of(name))
  end
  if is_rule then
    next_number('rules:n')
  end
  return value
end

local function expiry_after(ttl)
  return ttl >= 0 and now + ttl or nil
end

if what == 'get' then
  return get(given[3]) or false
elseif what == 'list' then
  return states_in(namespace)
elseif what == 'put' then
  local name, json, ttl, version = given[3], given[4], given[5], given[6]
  if version >= 0 then
    local present = get(name)
    if (present and parts_of(present) or 0) ~= version then
      return false
    end
  end
  return put(name, json, expiry_after(ttl))
elseif what == 'add' then
  local name, amount, ttl = given[3], given[4], given[5]
  local present = get(name)
  if not present or not parts_of(present) then -- none, or damaged
    put(name, digits(amount), expiry_after(ttl))
    return { 1, amount }
  end
  local _, expiry, json = parts_of(present)
  if not string.match(json, '^-?%d+$') then
    return { 0, json }
  end
  local sum = tonumber(json) + amount
  put(name, digits(sum), expiry)
  return { 1, sum }
else
  local answers = {}
  if is_rule then
    next_number('rules:n')
  end
  for index, name in ipairs(given[3]) do
    answers[index] = get(name) and 1 or 0
    write('HDEL', table_key, name)
    write('ZREM', expiries, member_of(name))
  end
  return answers
end
