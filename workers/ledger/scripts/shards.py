"""Lua scripts on single shards: claim, renew, release, postpone, give up, complete, expire."""

from __future__ import annotations

from workers.ledger.scripts.common import COMMON

# The next shard that is neither done nor leased nor dead: first those never claimed, then those released.
_NEXT_FREE = """
local function fit(job, shard)
  return redis.call('GETBIT', P .. 'done:' .. job, shard) == 0
    and not redis.call('ZSCORE', P .. 'lease:' .. job, shard)
    and redis.call('SISMEMBER', P .. 'dead:' .. job, shard) == 0
end

local function next_free(job)
  local facts = redis.call('HMGET', P .. 'job:' .. job, 'shards', 'cursor')
  local total, cursor = tonumber(facts[1] or '0'), tonumber(facts[2] or '0')
  local found = nil
  while not found and cursor < total do
    if cursor % 8 == 0 then  -- over whole bytes of finished shards in one step
      cursor = math.min(total, math.max(cursor, redis.call('BITPOS', P .. 'done:' .. job, 0, cursor / 8)))
    end
    if cursor < total then
      if fit(job, cursor) then found = cursor end
      cursor = cursor + 1
    end
  end
  if cursor ~= tonumber(facts[2]) then redis.call('HSET', P .. 'job:' .. job, 'cursor', cursor) end
  while not found do
    local shard = redis.call('LPOP', P .. 'todo:' .. job)
    if not shard then return nil end
    if fit(job, shard) then found = shard end
  end
  return found
end
"""

# ARGV: prefix, lease seconds, nonce, declined jobs... -> {job, shard, url, name} or nothing.
# Between tenants: start-time fair queueing (Goyal, Vin, Cheng 1996). A tenant's tag is the virtual time at which its
# last shard ends, 1/weight after its start. The smallest tag is served next; an idle tenant accumulates no credit.
CLAIM = (
    COMMON
    + _NEXT_FREE
    + """
local declined = {}
for i = 4, #ARGV do declined[ARGV[i]] = true end

local function served(tenant, tag, weight, job, shard, clock)
  local start = math.max(tag, clock)
  redis.call('SET', P .. 'clock', string.format('%.17g', start))
  redis.call('ZADD', P .. 'tenants', start + 1 / weight, tenant)
  local turn, facts = redis.call('INCR', P .. 'turn'), P .. 'job:' .. job
  redis.call('ZADD', P .. 'queue:' .. tenant, place(redis.call('HGET', facts, 'priority') or 0, turn), job)
  redis.call('ZADD', P .. 'jobs', turn, job)
  redis.call('ZADD', P .. 'lease:' .. job, now + tonumber(ARGV[2]), shard)
  redis.call('HSET', P .. 'nonce:' .. job, shard, ARGV[3])
  redis.call('HSET', P .. 'made:' .. job, shard, 0)
  local where = redis.call('HMGET', facts, 'url', 'name')
  return {short(job), tonumber(shard), short(where[1]), short(where[2])}
end

local clock = tonumber(redis.call('GET', P .. 'clock') or '0')
local tenants = redis.call('ZRANGE', P .. 'tenants', 0, -1, 'WITHSCORES')
for i = 1, #tenants, 2 do
  local tenant, tag = tenants[i], tonumber(tenants[i + 1])
  local jobs, limit = redis.call('ZRANGE', P .. 'queue:' .. tenant, 0, -1), limits(tenant)
  if #jobs == 0 and tag <= clock then redis.call('ZREM', P .. 'tenants', tenant) end
  if #jobs > 0 and not (limit.running_shards and running(tenant) >= limit.running_shards) then
    for _, job in ipairs(jobs) do
      local shard = not declined[job] and next_free(job)
      if shard then return served(tenant, tag, limit.weight or 1, job, shard, clock) end
    end
  end
end
return nil
"""
)

# ARGV: prefix, job, shard, nonce, lease seconds, images made -> 1 or 0
RENEW = (
    COMMON
    + """
local job, shard = ARGV[2], ARGV[3]
if not holds(job, shard, ARGV[4]) then return 0 end
redis.call('ZADD', P .. 'lease:' .. job, now + tonumber(ARGV[5]), shard)
redis.call('HSET', P .. 'made:' .. job, shard, ARGV[6])
return 1
"""
)

# ARGV: prefix, job, shard, nonce -> 1 or 0
RELEASE = (
    COMMON
    + """
local job, shard = ARGV[2], ARGV[3]
if not holds(job, shard, ARGV[4]) then return 0 end
forget(job, shard)
redis.call('RPUSH', P .. 'todo:' .. job, shard)
return 1
"""
)

# ARGV: prefix, nonce prefix of one worker -> number of released shards
RELEASE_ALL = (
    COMMON
    + """
local count = 0
for _, job in ipairs(redis.call('ZRANGE', P .. 'jobs', 0, -1)) do
  local held = redis.call('HGETALL', P .. 'nonce:' .. job)
  for i = 1, #held, 2 do
    if string.sub(held[i + 1], 1, #ARGV[2]) == ARGV[2] then
      forget(job, held[i])
      redis.call('RPUSH', P .. 'todo:' .. job, held[i])
      count = count + 1
    end
  end
end
return count
"""
)

# ARGV: prefix, job, shard, nonce, jitter (0 to 1), base seconds, cap seconds -> faults of this shard so far.
# The shard stays in the leases, without a nonce, until its back-off is over.
POSTPONE = (
    COMMON
    + """
local job, shard = ARGV[2], ARGV[3]
if not holds(job, shard, ARGV[4]) then return 0 end
local faults = redis.call('HINCRBY', P .. 'tries:' .. job, shard, 1)
local delay = math.min(tonumber(ARGV[7]), tonumber(ARGV[6]) * 2 ^ faults) * tonumber(ARGV[5])
forget(job, shard)
redis.call('ZADD', P .. 'lease:' .. job, now + delay, shard)
return faults
"""
)

# ARGV: prefix, job, shard -> 2 when all unfinished shards of the job are dead, else 0
GIVE_UP = (
    COMMON
    + """
local job, shard = ARGV[2], ARGV[3]
if not live(job) or redis.call('GETBIT', P .. 'done:' .. job, shard) == 1 then return 0 end
forget(job, shard)
redis.call('SADD', P .. 'dead:' .. job, shard)
local _, finished, dead, total = standing(job)
return finished + dead >= total and 2 or 0
"""
)

# ARGV: prefix, job, shard, nonce, bounds of its segment or -1 twice -> {1 when every shard of a live job is done, 2
# when all others are dead, else 0; 1 when this was the last shard of its segment, else 0}. The shard counts as done
# even if the caller's lease was lost. The first byte of a segment may hold shards of the one before.
COMPLETE = (
    COMMON
    + """
local job, shard = ARGV[2], ARGV[3]

local function all_done(first, stop)
  local key, from = P .. 'done:' .. job, first
  while from < stop and from % 8 ~= 0 do
    if redis.call('GETBIT', key, from) == 0 then return 0 end
    from = from + 1
  end
  if from < stop and redis.call('BITPOS', key, 0, from / 8) < stop then return 0 end
  return 1
end

if not live(job) then return {0, 0} end
local before = redis.call('SETBIT', P .. 'done:' .. job, shard, 1)
local last = tonumber(ARGV[5]) >= 0 and before == 0 and all_done(tonumber(ARGV[5]), tonumber(ARGV[6])) or 0
redis.call('SREM', P .. 'dead:' .. job, shard)
if redis.call('HGET', P .. 'nonce:' .. job, shard) == ARGV[4] then forget(job, shard) end
local _, finished, dead, total = standing(job)
if finished >= total then return {1, last} end
return {finished + dead >= total and 2 or 0, last}
"""
)

# ARGV: prefix, job, faults after which a shard is given up, seconds for the caller to give it up
# -> {number of freed shards, shards to give up...}.
# An expired lease that still has its nonce was never released: its worker was lost, which counts as a fault.
FREE_EXPIRED = (
    COMMON
    + """
local job, bury = ARGV[2], {0}
for _, shard in ipairs(redis.call('ZRANGEBYSCORE', P .. 'lease:' .. job, '-inf', now)) do
  local lost = redis.call('HEXISTS', P .. 'nonce:' .. job, shard) == 1
  forget(job, shard)
  if redis.call('GETBIT', P .. 'done:' .. job, shard) == 0 then
    if lost and redis.call('HINCRBY', P .. 'tries:' .. job, shard, 1) >= tonumber(ARGV[3]) then
      redis.call('ZADD', P .. 'lease:' .. job, now + tonumber(ARGV[4]), shard)
      table.insert(bury, tonumber(shard))
    else
      redis.call('RPUSH', P .. 'todo:' .. job, shard)
      bury[1] = bury[1] + 1
    end
  end
end
return bury
"""
)
