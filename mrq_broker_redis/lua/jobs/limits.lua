-- needs: base, slots
-- What limits allow in one claim: concurrency by counting slots, rates by GCRA (ITU-T I.371), in microseconds.
-- rates: sorted set, limit key by the time of its next turn if all came evenly.

local rules = {} -- by name: { concurrency or -1, interval or 0, tolerance }
local running, times = {}, {}

local function rule_of(key)
  return rules[string.match(key, '^[^:]*')]
end

-- How many more may run under the key; nil: any number.
local function room_under(key)
  local rule = rule_of(key)
  if not rule or rule[1] < 0 then
    return nil
  end
  if not running[key] then
    running[key] = tonumber(call('HGET', K .. 'running', key) or 0)
  end
  return math.max(0, rule[1] - running[key])
end

local function full_key(keys)
  for _, key in ipairs(keys) do
    if room_under(key) == 0 then
      return key
    end
  end
end

-- Whether a job that has lost its lease may go on: each of its slots is held still, or there is room for it.
local function has_slots(id, keys)
  local missing = {}
  for _, key in ipairs(keys) do
    if not call('ZSCORE', K .. 'slots', id .. ' ' .. key) then
      missing[#missing + 1] = key
    end
  end
  return full_key(missing) == nil
end

local function took(keys)
  for _, key in ipairs(each_once(keys)) do
    if running[key] then
      running[key] = running[key] + 1
    end
  end
end

-- Reserves the next turn under all rates of the keys (GCRA, in microseconds), and says when it is.
local function turn_of(keys)
  local turn = now * 1000
  for _, key in ipairs(each_once(keys)) do
    local rule = rule_of(key)
    if rule and rule[2] > 0 then
      if not times[key] then
        times[key] = tonumber(call('ZSCORE', K .. 'rates', key) or 0)
      end
      local time = math.max(times[key], now * 1000)
      turn = math.max(turn, time - rule[3])
      times[key] = time + rule[2]
    end
  end
  return math.ceil(turn / 1000)
end

local function write_rates()
  for key, time in pairs(times) do
    call('ZADD', K .. 'rates', digits(time), key)
  end
  running, times = {}, {}
end
