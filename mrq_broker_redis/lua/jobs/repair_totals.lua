-- needs: base, recounting
-- Counts totals anew that were evicted or deleted by hand: then their sum of a status differs from the number of jobs
-- in the index of the status, or a number is negative.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: {}
-- Answers the number of totals that were corrected. 0 as well if the indexes of statuses have lost jobs, because totals
-- are counted from them. The times at which jobs expire are made anew too, where one of up to a thousand jobs of each
-- status has lost its time, and count as one total.

local function number_of_jobs()
  local sizes, number = {}, 0
  for _, status in ipairs(STATUSES) do
    sizes[status] = call('ZCARD', status_index(status))
    number = number + sizes[status]
  end
  return sizes, number
end

local function number_in_queues()
  local number = 0
  for _, queue in ipairs(call('ZRANGE', K .. 'queues', 0, -1)) do
    number = number + call('ZCARD', index_of('q', queue))
  end
  return number
end

-- The jobs of each status that are examined: the server evicts whole keys, but jobs that end later are in the new one.
local PARTS, IN_PART = 10, 100

local function have_lost_expiry()
  for _, status in ipairs(STATUSES) do
    local size = call('ZCARD', status_index(status))
    local step = math.max(IN_PART, math.floor((size - IN_PART) / (PARTS - 1)))
    for first = 0, size - 1, step do
      for _, id in ipairs(call('ZRANGE', status_index(status), first, first + IN_PART - 1)) do
        if tonumber(field_of(id, 'x')) and not on('ZSCORE', K .. 'x', id) then
          return true
        end
      end
    end
  end
end

local function totals_in(key)
  local found, totals = numbers_in(key), {}
  for index = 1, #found, 2 do
    totals[found[index]] = tonumber(found[index + 1])
  end
  return totals
end

-- sizes: nil for totals that do not count every job.
local function are_wrong(totals, sizes)
  local sums = {}
  for field, number in pairs(totals) do
    local status = string.match(field, '^%S+')
    sums[status] = (sums[status] or 0) + number
    if number < 0 then
      return true
    end
  end
  for status, size in pairs(sizes or {}) do
    if (sums[status] or 0) ~= size then
      return true
    end
  end
  return false
end

local function number_of_differences(before, after)
  local number = 0
  for field, total in pairs(before) do
    number = number + (after[field] == total and 0 or 1)
  end
  for field in pairs(after) do
    number = number + (before[field] and 0 or 1)
  end
  return number
end

local expiries = 0
if have_lost_expiry() then
  REMAKE.x(K .. 'x')
  expiries = 1
end
local sizes, number = number_of_jobs()
if number < number_in_queues() then
  return expiries
end
local corrected = 0
for _, kind in ipairs({ 'q', 'h', 'g', 'e' }) do
  local name = 'n:' .. kind
  local before = totals_in(K .. name)
  local counts_all = kind == 'q' or kind == 'h'
  if are_wrong(before, counts_all and sizes or nil) or (corrected > 0 and not counts_all) then
    call('DEL', K .. name)
    REMAKE[name](K .. name)
    corrected = corrected + number_of_differences(before, totals_in(K .. name))
  end
end
return corrected + expiries
