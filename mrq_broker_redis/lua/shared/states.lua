-- needs: base
-- Reads shared state; see state.

-- The parts of a stored value; nil for a damaged one.
local function parts_of(value)
  local version, expiry, json = string.match(value, '^(%d+) (%d*) (.*)$')
  if not version or #version > 15 or #expiry > 15 then
    return nil
  end
  return tonumber(version), tonumber(expiry), json
end

local function is_valid(value)
  local _, expiry = parts_of(value)
  return not (expiry and expiry <= now)
end

-- The value of a name; nil: the name has no value, or the value has expired.
local function state_in(namespace, name)
  local value = try('HGET', K .. 'state:' .. namespace, name)
  return type(value) == 'string' and is_valid(value) and value or nil
end

-- The values of a namespace: { name, value, ... }.
local function states_in(namespace)
  local found = {}
  local all = try('HGETALL', K .. 'state:' .. namespace)
  for index = 1, #all, 2 do
    if is_valid(all[index + 1]) then
      found[#found + 1] = all[index]
      found[#found + 1] = all[index + 1]
    end
  end
  return found
end
