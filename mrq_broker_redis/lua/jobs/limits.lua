-- needs: base, recounting, batch, slots
-- Limits within one claim: concurrency by counting slots, rates by GCRA (ITU-T I.371), in microseconds.
-- rates: sorted set, limit key by the time of its next claim if claims came evenly.  spacings: hash, limit key to
-- "interval:tolerance", in which that time was counted. Earlier versions wrote no spacing. The start key of a limit key
-- has the time by starts in `rates`, in the same spacing.

-- By name, and by the key task:<path> of a paused task: { concurrency or -1, interval or 0, tolerance }
local rules = {}
local ONE_AT_A_TIME = { 1, 0, 0 } -- of each key schedules:<name> (OVERLAP_RULE of mrq_core.contract.rules)
local running, times = {}, {}
local changed, respaced = {}, {} -- by key: times to write; by limit key: spacings to write
local first_parked, examined = {}, {} -- by limit key: see comes_after_parked, opens_at

local function rule_of(key)
  local name = string.match(key, '^[^:]*')
  if name == 'schedules' then
    return ONE_AT_A_TIME
  end
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

-- Whether a job with an expired lease may run again: it still holds each of its slots, or the limit has room. Where a
-- limit has become smaller than the number of slots, they end first, with their leases.
local function has_slots(id, keys)
  local missing = {}
  for _, key in ipairs(keys) do
    if not call('ZSCORE', K .. 'slots', id .. ' ' .. key) then
      missing[#missing + 1] = key
    elseif room_under(key) == 0 and running[key] > rule_of(key)[1] then
      return false
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

local function start_key(key)
  return '\n' .. key
end

local function spacing_text(rule)
  return digits(rule[2]) .. ':' .. digits(rule[3])
end

local function set_time(key, time)
  times[key], changed[key] = time, true
end

local function stored_us_of(key)
  if not times[key] then
    times[key] = tonumber(call('ZSCORE', K .. 'rates', key) or 0)
  end
  return times[key]
end

-- The time of the key. Where the rule has changed since it was counted, it and the time by starts are cut to one interval
-- ahead.
local function even_us_of(key, rule)
  if not times[key] and stored_us_of(key) > 0 and call('HGET', K .. 'spacings', key) ~= spacing_text(rule) then
    for _, name in ipairs({ key, start_key(key) }) do
      set_time(name, math.min(stored_us_of(name), now * 1000 + rule[2]))
    end
    respaced[key] = spacing_text(rule)
  end
  return math.max(times[key], now * 1000)
end

-- The time of the key by starts.
local function start_us_of(key, rule)
  even_us_of(key, rule) -- which cuts both
  return math.max(stored_us_of(start_key(key)), now * 1000)
end

-- Whether a job may start at a time that was reserved for it (Spacing.may_start of mrq_core.drivers.limits).
local function may_start(keys)
  for _, key in ipairs(keys) do
    local rule = rate_of(key)
    if rule and start_us_of(key, rule) - rule[3] - rule[2] > now * 1000 then
      return false
    end
  end
  return true
end

local function set_even(key, rule, time)
  set_time(key, time)
  respaced[key] = spacing_text(rule)
end

-- Counts a job that starts now under the rates of its keys.
local function starts(keys)
  for _, key in ipairs(each_once(keys)) do
    local rule = rate_of(key)
    if rule then
      local time = start_us_of(key, rule) + rule[2]
      set_time(start_key(key), time)
      if time > even_us_of(key, rule) then
        set_even(key, rule, time)
      end
    end
  end
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
-- is_late: the job had a reserved start, could not take it, and always gets another.
local function reserve_allowed_ms(keys, id, queue, rank, is_late)
  local now_us = now * 1000
  local allowed_us, latest, rated, due = now_us, nil, {}, nil
  for _, key in ipairs(each_once(keys)) do
    local rule = rate_of(key)
    if rule then
      due = due or call('ZSCORE', waiting_line(queue, rank), id)
      if not is_late and comes_after_parked(key, id, rank, due) then
        examined[key] = true
        return nil, key
      end
      rated[key] = math.max(even_us_of(key, rule), start_us_of(key, rule))
      local allowed = rated[key] - rule[3]
      if allowed > allowed_us then
        allowed_us, latest = allowed, key
      end
    end
  end
  if allowed_us > now_us + HORIZON_US and not is_late then
    examined[latest] = true
    return nil, latest
  end
  for key, even_us in pairs(rated) do
    local rule = rate_of(key)
    set_even(key, rule, even_us + rule[2])
  end
  return math.ceil(allowed_us / 1000)
end

local function write_rates()
  for key in pairs(changed) do
    call('ZADD', K .. 'rates', digits(times[key]), key)
  end
  for key, spacing in pairs(respaced) do
    call('HSET', K .. 'spacings', key, spacing)
  end
  running, times, changed, respaced, first_parked = {}, {}, {}, {}, {}
end
