-- needs: base, recounting, batch, slots
-- Limits within one claim: concurrency by counting slots, rates by GCRA (ITU-T I.371), in microseconds.
-- rates: sorted set, limit key by the time of its next claim if claims came evenly.  spacings: hash, limit key to
-- "interval:tolerance", in which that time was counted. Earlier versions wrote no spacing.

-- By name, and by the key task:<path> of a paused task: { concurrency or -1, interval or 0, tolerance }
local rules = {}
local running, times = {}, {}
local changed, first_parked, examined = {}, {}, {} -- by limit key: times to write, see comes_after_parked, opens_at

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
    running[key] = tonumber(on('HGET', K .. 'running', key) or 0) or 0
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

-- The rule of the key, if it has a rate.
local function rate_of(key)
  local rule = rule_of(key)
  return rule and rule[2] > 0 and rule or nil
end

-- The time of the key. Where the rule has changed since the time was counted, the time is cut to one interval ahead.
local function even_us_of(key, rule)
  if not times[key] then
    local time = tonumber(call('ZSCORE', K .. 'rates', key) or 0)
    if time > 0 and call('HGET', K .. 'spacings', key) ~= digits(rule[2]) .. ':' .. digits(rule[3]) then
      time = math.min(time, now * 1000 + rule[2])
      changed[key] = time
    end
    times[key] = time
  end
  return math.max(times[key], now * 1000)
end

-- The number of parked jobs that may go now, by the concurrency and the rate of the key; nil: any number.
local function room_to_let_go(key)
  local room, rule = room_under(key), rate_of(key)
  if not rule then
    return room
  end
  examined[key] = true
  return math.min(room or math.huge, rate_room(even_us_of(key, rule), rule[2], rule[3]))
end

-- The first time at which a rate lets a parked job of the examined keys go, in milliseconds; nil: none is known.
local function opens_at()
  local first
  for key in pairs(examined) do
    local rule = rate_of(key)
    if rule and room_under(key) ~= 0 and call('EXISTS', K .. 'park:' .. key) == 1 then
      local time = math.ceil((even_us_of(key, rule) - rule[3] - HORIZON_US) / 1000)
      first = math.min(first or time, time)
    end
  end
  return first
end

-- Whether a due job comes later than the parked jobs of the key, by rank, due time and id.
local function comes_after_parked(key, id, rank, due)
  if first_parked[key] == nil then
    local first = call('ZRANGE', K .. 'park:' .. key, 0, 0)[1]
    first_parked[key] = first and string.sub(first, 1, 1) .. string.sub(first, 15) or false
  end
  return first_parked[key] and first_parked[key] < string.format('%d%013.0f', rank + 4, due) .. id
end

-- Reserves the next start under all rates of the keys of a due job (GCRA, in microseconds), and answers its time; or nil
-- and a key: its rate lets the job start beyond the horizon, or its parked jobs come first, and nothing is reserved.
local function reserve_allowed_ms(keys, id, queue, rank)
  local now_us = now * 1000
  local allowed_us, latest, rated, due = now_us, nil, {}, nil
  for _, key in ipairs(each_once(keys)) do
    local rule = rate_of(key)
    if rule then
      due = due or call('ZSCORE', waiting_line(queue, rank), id)
      if comes_after_parked(key, id, rank, due) then
        examined[key] = true
        return nil, key
      end
      rated[key] = rule
      local allowed = even_us_of(key, rule) - rule[3]
      if allowed > allowed_us then
        allowed_us, latest = allowed, key
      end
    end
  end
  if allowed_us > now_us + HORIZON_US then
    examined[latest] = true
    return nil, latest
  end
  for key, rule in pairs(rated) do
    times[key] = even_us_of(key, rule) + rule[2]
    changed[key] = times[key]
  end
  return math.ceil(allowed_us / 1000)
end

local function write_rates()
  for key, time in pairs(changed) do
    local rule = rate_of(key)
    call('ZADD', K .. 'rates', digits(time), key)
    call('HSET', K .. 'spacings', key, digits(rule[2]) .. ':' .. digits(rule[3]))
  end
  running, times, changed, first_parked = {}, {}, {}, {}
end
