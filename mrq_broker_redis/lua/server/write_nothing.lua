-- needs: base
-- Runs the commands of all scripts on a key that it deletes again, to find out what the server refuses.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: {}
-- Answers the commands that the ACL of the user forbids.

local none = K .. 'none'
call('SETRANGE', none, 0, '') -- fails on a server that takes no changes

local TRIED = {
  DEL = {}, UNLINK = {}, EXISTS = {}, TYPE = {}, RENAME = { none }, PEXPIRE = { '1000' },
  GET = {}, MGET = {}, SET = { '0' }, SETNX = { '0' }, APPEND = { '0' }, INCR = {},
  HGET = { '0' }, HMGET = { '0' }, HGETALL = {}, HKEYS = {}, HLEN = {}, HSCAN = { '0' }, HEXISTS = { '0' },
  HSET = { '0', '0' }, HDEL = { '0' }, HINCRBY = { '0', '1' },
  SMEMBERS = {}, SSCAN = { '0' }, SADD = { '0' }, SREM = { '0' }, SPOP = {},
  ZCARD = {}, ZCOUNT = { '0', '0' }, ZSCORE = { '0' }, ZRANK = { '0' }, ZRANGE = { '0', '0' },
  ZRANGEBYLEX = { '-', '+' }, ZRANGEBYSCORE = { '0', '0' }, ZREVRANGEBYSCORE = { '0', '0' },
  ZADD = { '0', '0' }, ZREM = { '0' },
  LRANGE = { '0', '0' }, RPUSH = { '0' }, LREM = { '0', '0' }, LTRIM = { '0', '0' },
}

local function is_forbidden(command)
  local answer = try(command, none, unpack(TRIED[command]))
  local text = type(answer) == 'table' and answer.err or ''
  return string.find(text, 'NOPERM', 1, true) or string.find(text, "The user executing the script can't", 1, true)
end

if is_forbidden('DEL') then -- the key would stay
  return { 'DEL' }
end
local forbidden = {}
for command in pairs(TRIED) do
  if is_forbidden(command) then
    forbidden[#forbidden + 1] = command
  end
end
call('DEL', none)
return forbidden
