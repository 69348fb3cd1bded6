-- needs: base
-- Reads the columns of jobs that a filter tests.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, ... }, whether params are wanted, whether error groups are wanted,
--   { { { name, value }, ... }, ... }, { { { kind, value }, ... }, ... } }, of the last two each part with terms (see
--   terms), or indexes, of which a job needs one
-- Answers { now, row or nil, ... }, nil also for a job that lacks a part, an empty row for a damaged job; a row: queue, path, status, worker, exception
-- type, schedule, expiry, the time of queueing, params with their length or nil, error group or nil.

local parts = given[4]

local function has_one(id, terms)
  for _, term in ipairs(terms) do
    if call('ZSCORE', index_of('t', term[1]), term[2] .. '\0' .. id) then
      return true
    end
  end
  return false
end

local function has_terms(id)
  for _, terms in ipairs(parts) do
    if not has_one(id, terms) then
      return false
    end
  end
  return true
end

local indexed = {}
for _, part in ipairs(given[5]) do
  local keys = {}
  for _, index in ipairs(part) do
    keys[#keys + 1] = index_of(index[1], index[2])
  end
  indexed[#indexed + 1] = keys
end

local function is_in_one(id, keys)
  for _, key in ipairs(keys) do
    if call('ZSCORE', key, id) then
      return true
    end
  end
  return false
end

local function is_indexed(id)
  for _, keys in ipairs(indexed) do
    if not is_in_one(id, keys) then
      return false
    end
  end
  return true
end

local answers = { digits(now) }
for _, id in ipairs(given[1]) do
  local row = is_indexed(id) and (#parts == 0 or has_terms(id))
  if row then
    row = try('HMGET', key_of(id), 'q', 'h', 's', 'w', 'g', 'y', 'x', 'Q')
    row[9] = row[1] and given[2] and params_in(try('GET', data_of(id)))
    local exception = given[3] and row[5] and exception_of(id)
    row[10] = exception and exception[1] or false
  end
  if row and not (row[1] and row[2] and row[3]) then -- gone, or damaged
    row = call('EXISTS', key_of(id), data_of(id)) > 0 and {}
  end
  answers[#answers + 1] = row
end
return answers
