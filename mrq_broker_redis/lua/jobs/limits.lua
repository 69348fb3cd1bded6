-- needs: base, batch, slots
-- Limits within one claim: concurrency by counting slots, rates by GCRA (ITU-T I.371), in microseconds.
-- rates: sorted set, limit key by the time of its next claim if claims came evenly.

-- By name, and by the key task:<path> of a paused task: { concurrency or -1, interval or 0, tolerance }
local rules = {}
local running, times = {}, {}

local function rule_of(key)
  local name = string.match(key, '^[^:]*')
  return rules[name == 'task' and key or name]
end

-- The number of jobs that may still start under the key; nil: any number.
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

-- Whether a job with an expired lease may run again: it still holds each of its slots, or the limit has room.
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

-- Reserves the next start under all rates of the keys (GCRA, in microseconds), and answers its time.
local function reserve_allowed_ms(keys)
  local allowed_us = now * 1000
  for _, key in ipairs(each_once(keys)) do
    local rule = rule_of(key)
    if rule and rule[2] > 0 then
      if not times[key] then
        times[key] = tonumber(call('ZSCORE', K .. 'rates', key) or 0)
      end
      local time = math.max(times[key], now * 1000)
      allowed_us = math.max(allowed_us, time - rule[3])
      times[key] = time + rule[2]
    end
  end
  return math.ceil(allowed_us / 1000)
end

local function write_rates()
  for key, time in pairs(times) do
    call('ZADD', K .. 'rates', digits(time), key)
  end
  running, times = {}, {}
end
