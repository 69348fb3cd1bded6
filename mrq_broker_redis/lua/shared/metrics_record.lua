-- needs: base, recounting
-- Adds metrics to their cells; see `mrq_core.drivers.rollups`.
-- m:<resolution>:<slot>:<name>: hash, tags to cell.  metrics:<resolution>: sorted set, "<slot>:<name>" by slot.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { resolution, slot, name, tags, cell, ... }, five values for each cell.
-- No answer.

-- The cell as msgpack. By hand, because cmsgpack makes an array of a table whose keys are 1 to n.
local function packed(count, total, buckets)
  local parts, number = {}, 0
  for bucket, n in pairs(buckets) do
    number = number + 1
    parts[number] = cmsgpack.pack(bucket, n)
  end
  local map = string.char(0xde, math.floor(number / 256), number % 256)
  return '\147' .. cmsgpack.pack(count, total) .. map .. table.concat(parts)
end

-- A stored cell; nil if it is damaged, and then counts from now on.
local function cell_in(stored)
  local cell = keys_in(stored)
  return cell and tonumber(cell[1]) and tonumber(cell[2]) and type(cell[3]) == 'table' and cell or nil
end

for index = 1, #given, 5 do
  local resolution, member = given[index], digits(given[index + 1]) .. ':' .. given[index + 2]
  local key, tags, cell = K .. 'm:' .. resolution .. ':' .. member, given[index + 3], given[index + 4]
  local stored = try('HGET', key, tags)
  if type(stored) == 'table' then
    set_aside(key)
    stored = false
  end
  local before = stored and cell_in(stored)
  if before then
    local more = cmsgpack.unpack(cell)
    local buckets = before[3]
    for bucket, n in pairs(more[3]) do
      buckets[bucket] = (buckets[bucket] or 0) + n
    end
    cell = packed(before[1] + more[1], before[2] + more[2], buckets)
  else
    on('ZADD', K .. 'metrics:' .. resolution, digits(given[index + 1]), member)
  end
  call('HSET', key, tags, cell)
end
