-- needs: base, states
-- The changes for a worker since some versions.
-- rules:n: the version of the rules.  sig:<worker>: sorted set, ids of jobs to interrupt by their version.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { worker, version of the rules, version of the signals, the time in ms from which
--   the rules are needed again or -1, namespace of requests, { namespace of rules, ... } }
-- Answers { now, version of the rules, { id, version, ... }, requests or nil, { { name, value, ... }, ... } or nil }.

local worker, known, signals, again, requests, namespaces = unpack(given)
local stored = try('GET', K .. 'rules:n')
local version = type(stored) == 'string' and tonumber(stored) or 0
local found = try('ZRANGEBYSCORE', K .. 'sig:' .. worker, '(' .. digits(signals), '+inf', 'WITHSCORES')
found = found.err and {} or found
local rules = false
if version ~= known or (again >= 0 and again <= now) then
  rules = {}
  for index, namespace in ipairs(namespaces) do
    rules[index] = states_in(namespace)
  end
end
return { digits(now), version, found, state_in(requests, worker) or false, rules }
