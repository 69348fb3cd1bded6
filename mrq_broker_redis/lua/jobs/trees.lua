-- needs: base, recounting, batch
-- Resolves trees to the queues of a claim or a wait, and answers when they are due.

local MAX_SUBQUEUES, MAX_STEPS, MAX_PROMOTED = 32, 1000, 200

-- Whether a queue, or a tree that contains it, is excluded.
local function is_excluded(queue, excluded)
  if not next(excluded) then
    return false
  end
  if excluded[queue] then
    return true
  end
  for slash in string.gmatch(queue, '()/') do
    if excluded[string.sub(queue, 1, slash)] then
      return true
    end
  end
  return false
end

local function as_set(names)
  local set = {}
  for _, name in ipairs(names) do
    set[name] = true
  end
  return set
end

local function is_tree(name)
  return string.sub(name, -1) == '/'
end

-- The upper bound of the names that begin with the tree's name.
local function end_of(tree)
  return '(' .. string.sub(tree, 1, -2) .. '0'
end

-- Moves subqueues that have become due from `later` to `ready`, the earliest first.
local function promote(tree)
  local root = tree_of(tree)
  local names = call('ZRANGEBYSCORE', K .. 'later:' .. root, '-inf', now, 'LIMIT', 0, MAX_PROMOTED)
  if #names > 0 then
    local members = {}
    for _, name in ipairs(names) do
      members[#members + 1] = 0
      members[#members + 1] = name
    end
    call('ZADD', K .. 'ready:' .. root, unpack(members))
    call('ZREM', K .. 'later:' .. root, unpack(names))
  end
end

-- Ready queues of the tree by name, the queue with the name of the tree included, first those after `after`, then from the start, at most MAX_STEPS.
local function ready_in(tree, after)
  local key = K .. 'ready:' .. tree_of(tree)
  local found
  if after >= tree then
    found = call('ZRANGEBYLEX', key, '(' .. after, end_of(tree), 'LIMIT', 0, MAX_STEPS)
    if #found < MAX_STEPS then
      local again = call('ZRANGEBYLEX', key, '[' .. tree, '[' .. after, 'LIMIT', 0, MAX_STEPS - #found)
      for _, name in ipairs(again) do
        found[#found + 1] = name
      end
    end
  else
    found = call('ZRANGEBYLEX', key, '[' .. tree, end_of(tree), 'LIMIT', 0, MAX_STEPS)
  end
  return found
end

-- At most MAX_SUBQUEUES ready names; the last name of the walk, and whether the next claim continues there at once.
local function resolve(tree, excluded, after)
  local names, last, steps = {}, '', 0
  for _, name in ipairs(ready_in(tree, after)) do
    last = name
    steps = steps + 1
    if not is_excluded(name, excluded) then
      names[#names + 1] = name
      if #names == MAX_SUBQUEUES then
        break
      end
    end
  end
  return names, last, #names == 0 and steps == MAX_STEPS and last > after
end

-- The earliest time at which the wanted queues may have a due job; nil: never.
-- Leases that expired up to `leases_after` are left out, because the caller knows them.
local function next_due(wanted, leases_after)
  local found
  local function consider(time)
    if time and (not found or time < found) then
      found = time
    end
  end
  local function consider_queue(name)
    local waiting, claimed = heads_of(name)
    consider(waiting)
    if claimed and claimed <= leases_after then
      local later = call('ZRANGEBYSCORE', claimed_line(name), '(' .. digits(leases_after), '+inf',
        'WITHSCORES', 'LIMIT', 0, 1)
      claimed = tonumber(later[2])
    end
    consider(claimed)
  end
  for _, one in ipairs(wanted) do
    local name, excluded = one[1], as_set(one[4])
    if not is_tree(name) then
      if not is_excluded(name, excluded) then
        consider_queue(name)
      end
    else
      for _, ready in ipairs(ready_in(name, '')) do
        if found and found <= now then
          return found
        end
        if not is_excluded(ready, excluded) then
          consider_queue(ready)
        end
      end
      local later = call('ZRANGE', K .. 'later:' .. tree_of(name), 0, MAX_STEPS - 1)
      for _, queue in ipairs(later) do
        if string.sub(queue, 1, #name) == name and not is_excluded(queue, excluded) then
          local before = found
          consider_queue(queue)
          if found ~= before or found then
            break
          end
        end
      end
    end
    if found and found <= now then
      return found
    end
  end
  return found
end
