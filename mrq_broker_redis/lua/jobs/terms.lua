-- needs: base, recounting, batch
-- The terms of jobs: values under names, by which a filter finds jobs beside their columns.
-- i:t:<name>: sorted set by name, "<value>NUL<job id>"; neither a name nor a value contains NUL.
-- e:<id>: string, the stored exception of a job with the field g: { error group or nil, { name = { value, ... } } }
-- (msgpack), the second part with its terms.
-- n:e, n:g: hashes, totals by status and error group, by status and exception type.
-- A search key is a field of the job's hash, which has the name of the term, `key <name>`, and its value. The flag k in
-- the field f marks such a job.

-- Adds the terms of an exception to their indexes, or removes them, with add_later or remove_later.
local function add_terms(id, terms)
  for name, values in pairs(terms) do
    for _, value in ipairs(values) do
      add_later(index_of('t', name), '0', value .. '\0' .. id)
    end
  end
end

local function remove_terms(id, terms)
  for name, values in pairs(terms) do
    for _, value in ipairs(values) do
      remove_later(index_of('t', name), value .. '\0' .. id)
    end
  end
end

-- Keeps a damaged exception under another key. Its terms, and the total of its error group, stay because they are unknown.
local function set_exception_aside(id)
  local name = 'damaged:e:' .. id
  call('RENAME', K .. 'e:' .. id, K .. name)
  call('SADD', K .. 'damaged', name)
end

-- Replaces the stored exception of a job with its terms and its share of the totals. A row with an exception has g, its
-- type; after.E is the exception to store.
local function move_exception(id, before, after)
  local key, new = K .. 'e:' .. id, after.E
  local found, old
  if before.g then
    found, old = exception_of(id)
    if not found and call('EXISTS', key) == 1 then
      set_exception_aside(id)
      sum_later(K .. 'n:g', before.s .. ' ' .. before.g, -1)
    end
  end
  if old then
    sum_later(K .. 'n:g', before.s .. ' ' .. before.g, -1)
    if found[1] then
      sum_later(K .. 'n:e', before.s .. ' ' .. found[1], -1)
    end
    if old ~= new then
      remove_terms(id, found[2])
    end
    if not new then
      call('DEL', key)
    end
  end
  if new then
    local given_now = cmsgpack.unpack(new)
    sum_later(K .. 'n:g', after.s .. ' ' .. after.g, 1)
    if given_now[1] then
      sum_later(K .. 'n:e', after.s .. ' ' .. given_now[1], 1)
    end
    if old ~= new then
      add_terms(id, given_now[2])
      call('SET', key, new)
    end
  end
end

-- Stores the search keys of a job: { name, value, ... }.
local function add_search_keys(id, keys)
  call('HSET', key_of(id), unpack(keys))
  for index = 1, #keys, 2 do
    add_later(index_of('t', keys[index]), '0', keys[index + 1] .. '\0' .. id)
  end
end

-- Removes the terms of a job's search keys, before the job is deleted or gets other keys. Answers the names of the keys'
-- fields.
local function remove_search_keys(id)
  local fields, names = call('HGETALL', key_of(id)), {}
  for index = 1, #fields, 2 do
    if string.sub(fields[index], 1, 4) == 'key ' then
      names[#names + 1] = fields[index]
      remove_later(index_of('t', fields[index]), fields[index + 1] .. '\0' .. id)
    end
  end
  return names
end

local function replace_search_keys(id, keys)
  local names = remove_search_keys(id)
  if #names > 0 then
    call('HDEL', key_of(id), unpack(names))
  end
  if #keys > 0 then
    add_search_keys(id, keys)
  end
end
