-- needs: base, recounting, batch, trees
-- Finds the earliest time at which wanted queues may have a due job or raw parameter.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { wanted, ... }, known }
--   wanted: as in claiming, and then the kind of a raw queue, or false
--   known: the time up to which the caller knows expired leases, or -1 for now
-- Answers { now, time or nil }.

local due = next_due(given[1], given[2] < 0 and now or given[2])
local function consider(time)
  if time and (not due or time < due) then
    due = time
  end
end

local function consider_raw(queue, is_timed)
  local key = K .. 'raw:' .. queue
  local lease = tonumber(call('ZRANGE', K .. 'raw-until:' .. queue, 0, 0, 'WITHSCORES')[2])
  consider(lease)
  if is_timed then
    local head = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    consider(head and math.ceil(head * 1000))
    return head or lease
  end
  local is_there = call('EXISTS', key) == 1
  consider(is_there and now or nil)
  return is_there or lease
end

for _, one in ipairs(given[1]) do
  local name, kind = one[1], one[5]
  if kind then
    local is_timed = kind == '_timed_set'
    if not is_tree(name) then
      consider_raw(name, is_timed)
    else
      local names = K .. 'raw-names'
      for _, queue in ipairs(call('ZRANGEBYLEX', names, '[' .. name, end_of(name), 'LIMIT', 0, MAX_STEPS)) do
        if not consider_raw(queue, is_timed) then
          call('ZREM', names, queue)
        end
      end
    end
  end
end
return { digits(now), due and digits(due) or false }
